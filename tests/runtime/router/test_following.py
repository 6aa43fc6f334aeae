"""A router that follows another plan while it serves: no request is lost, no stream notices."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from contextlib import ExitStack, contextmanager

import pytest
from deploy.deploy_standin import payload
from deploy.deploy_standin import row as pool_row
from runtime.router.routed import CHUNKS, HEAD, STREAM, Gate, post, routing, row, streams

from hgpu.artifacts.store import Draft, save
from hgpu.bench.mock_process import mock_server
from hgpu.core.errors import HgpuError, InputError
from hgpu.runtime.completion import complete
from hgpu.runtime.ports import free_ports
from hgpu.runtime.router.following import Followed, follow_again
from hgpu.runtime.router.table import Table


def run(scenario):
    asyncio.run(asyncio.wait_for(scenario, 60))


def plan(at, shares, name="second", **urls):
    """A plan for the pools that `shares` names."""
    table = Table(tuple(shares), (4096,) * len(shares), [row(shares)])
    return Followed(table, {pool: at.urls[pool] for pool in shares} | urls, name)


def names_itself(name):
    async def answer(number, reader, writer):
        for part in (HEAD, b"1\r\n%b\r\n" % name, *CHUNKS):
            writer.write(part)
            await writer.drain()

    return answer


def test_under_load_every_request_is_answered_and_new_ones_go_by_the_new_shares():
    async def scenario():
        rows = [row({"a": 0.5, "b": 0.5})]
        async with routing(*map(names_itself, (b"a", b"b", b"c")), rows=rows) as at:
            taken, enough, changed = [], asyncio.Event(), asyncio.Event()

            async def client():
                reader, writer = await at.connect()
                while not enough.is_set():
                    new = changed.is_set()
                    writer.write(post())
                    answer = await reader.readuntil(CHUNKS[-1])
                    assert answer.startswith(HEAD + b"1\r\n") and answer.endswith(b"".join(CHUNKS))
                    taken.append((new, answer[len(HEAD) + 3 :][:1].decode()))
                    if len(taken) == 400:
                        at.router.follow(plan(at, {"b": 0.25, "c": 0.75}))
                        changed.set()
                    if len(taken) >= 2000:
                        enough.set()
                writer.close()

            await asyncio.gather(*(client() for _ in range(16)))
            old = Counter(pool for new, pool in taken if not new)
            now = Counter(pool for new, pool in taken if new)
            assert old["a"] >= 190 and old["c"] <= 16  # those that were between two requests
            assert set(now) == {"b", "c"}
            total = sum(now.values())
            assert total > 1500 and abs(now["c"] - 0.75 * total) <= 16
            assert at.router.pools[0].name == "b" and at.sample("healthy", pool="a") is None
            assert at.sample("in_flight", pool="b") == 0

    run(scenario())


def test_a_stream_of_a_pool_that_leaves_comes_to_its_end_and_its_connection_goes():
    async def scenario():
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def slow(number, reader, writer):
            writer.write(HEAD + CHUNKS[0])
            begun.set()
            await go_on.wait()
            writer.write(b"".join(CHUNKS[1:]))

        async with routing(slow, streams, rows=[row({"a": 1.0})]) as at:
            asked = asyncio.create_task(at.ask(post()))
            await begun.wait()
            at.router.follow(plan(at, {"b": 1.0}))
            assert at.sample("in_flight", pool="a") == 1 and at.sample("healthy", pool="a") is None
            assert await at.ask(post()) == STREAM
            assert len(at.backends[1].requests) == 1
            go_on.set()
            assert await asked == STREAM
            await asyncio.wait(at.backends[0].tasks)  # its connections have been closed
            assert at.sample("in_flight", pool="a") == 0

    run(scenario())


def test_idle_connections_of_a_pool_that_leaves_are_closed_and_those_of_one_that_stays_are_kept():
    async def scenario():
        async with routing(streams, streams, rows=[row({"a": 0.5, "b": 0.5})]) as at:
            for _ in range(2):
                assert await at.ask(post()) == STREAM
            at.router.follow(plan(at, {"b": 1.0}))
            closed = at.backends[0].tasks[-1]
            await asyncio.wait([closed])
            assert await at.ask(post()) == STREAM
            assert len(at.backends[1].connections) == 1

    run(scenario())


def test_a_request_that_nobody_has_begun_to_answer_takes_the_new_way():
    async def scenario():
        tried = asyncio.Event()

        async def unavailable(number, reader, writer):
            writer.write(b"HTTP/1.1 503 X\r\ncontent-length: 1\r\n\r\nx")
            tried.set()

        async with routing(unavailable, streams, rows=[row({"a": 1.0})]) as at:
            at.router.follow(plan(at, {"a": 1.0}))
            asked = asyncio.create_task(at.ask(post()))
            await tried.wait()
            at.router.follow(plan(at, {"b": 1.0}))
            assert await asked == STREAM

    run(scenario())


def test_a_pool_of_the_same_name_at_another_place_is_another_pool():
    async def scenario():
        gate = Gate()
        async with routing(gate, streams, rows=[row({"a": 1.0})]) as at:
            first = asyncio.create_task(at.ask(post()))
            await gate.begun.wait()
            at.router.follow(plan(at, {"a": 1.0}, a=at.urls["b"]))
            assert await at.ask(post()) == STREAM
            assert len(at.backends[0].requests) == len(at.backends[1].requests) == 1
            assert at.sample("in_flight", pool="a") == 1
            gate.open.set()
            assert await first == STREAM

    run(scenario())


def test_new_pools_are_probed_and_old_ones_no_more():
    async def scenario():
        async with routing(streams, streams, rows=[row({"a": 1.0})], probe_s=0.01) as at:
            at.backends[1].healthy = False
            at.router.follow(plan(at, {"a": 1.0}))
            at.router.follow(plan(at, {"b": 1.0}))
            while at.sample("healthy", pool="b"):
                await asyncio.sleep(0.005)  # the probes run in threads
            assert list(at.router._probes) == at.router.pools

    run(scenario())


def test_a_tier_that_the_new_plan_lacks_counts_as_the_mix_for_what_was_admitted_before():
    async def scenario():
        gate = Gate()
        async with routing(gate, streams, rows=[row({"a": 1.0}, tier="gold")]) as at:
            first = asyncio.create_task(
                at.ask(post(b'{"prompt": "hi"}', b"/v1/completions", b"X-Hgpu-Tier: gold"))
            )
            await gate.begun.wait()
            at.router.follow(plan(at, {"b": 1.0}))
            for writer in at.backends[0].connections:
                writer.transport.abort()  # before a byte of its answer
            assert await first == STREAM
            assert len(at.backends[1].requests) == 1

    run(scenario())


@pytest.mark.parametrize("error", [InputError("no plan"), ValueError("odd"), RecursionError("deep")])
def test_what_cannot_be_followed_is_said_and_the_next_one_is_followed(error):
    async def scenario():
        async with routing(streams, streams, rows=[row({"a": 1.0})]) as at:
            answers = [error, plan(at, {"b": 1.0})]
            asked = asyncio.Event()

            def read():
                found = answers.pop(0)
                if isinstance(found, Exception):
                    raise found
                return found

            following = asyncio.create_task(follow_again(at.router, read, asked))
            asked.set()
            assert await at.said.get() == f"plan first stays: {error}"
            assert await at.ask(post()) == STREAM and len(at.backends[0].requests) == 1
            asked.set()
            assert await at.said.get() == "following plan second: pools b"
            assert await at.ask(post()) == STREAM and len(at.backends[1].requests) == 1
            assert at.sample("plan_rereads_total", outcome="refused") == 1
            assert at.sample("plan_rereads_total", outcome="followed") == 1
            following.cancel()

    run(scenario())


def test_a_plan_without_pools_is_refused():
    with pytest.raises(InputError, match="no pools"):
        Followed(Table((), (), []), {})


class Load:
    """Clients that ask all the time; `failures` has what wasn't answered."""

    def __init__(self, url, clients=4, prompt="hello"):
        self.failures, self.served, self._enough = [], [], threading.Event()
        self._more = threading.Condition()
        self._clients = [threading.Thread(target=self._ask, args=[url, prompt]) for _ in range(clients)]
        for client in self._clients:
            client.start()

    def _ask(self, url, prompt):
        while not self._enough.is_set():
            try:
                answer = complete(url, "mock", prompt, 4).tokens
            except HgpuError as error:
                self.failures.append(str(error))
                return
            with self._more:
                self.served.append(answer)
                self._more.notify_all()

    def await_more(self, count):
        with self._more:
            goal = len(self.served) + count
            assert self._more.wait_for(lambda: len(self.served) >= goal or self.failures, 30)

    def end(self):
        self._enough.set()
        for client in self._clients:
            client.join(30)


@contextmanager
def router_process(*words):
    process = subprocess.Popen(
        [sys.executable, "-m", "hgpu", "router", *words, "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def answers(port):
    """Answers by pool, as the router's metrics tell."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    lines = [line for line in text.splitlines() if line.startswith("hgpu_router_answers_total{")]
    return {line.split('"')[1]: float(line.split()[-1]) for line in lines if 'status="200"' in line}


def test_sighup_under_load_loses_no_request_and_changes_the_shares(tmp_path):
    plans = [
        save(tmp_path, Draft("plan", "chat", payload(pool_row(first), pool_row(second))))
        for first, second in ("ab", "bc")
    ]
    ref = tmp_path / "refs" / "plan" / "live.json"
    ref.parent.mkdir(parents=True)
    urls_file = tmp_path / "pools"
    (metrics,) = free_ports(1)

    with ExitStack() as stack:
        urls = {name: stack.enter_context(mock_server()) for name in "abc"}

        def live(artifact, pools):
            ref.write_text(json.dumps({"digest": artifact.digest}))
            urls_file.write_text("# the pools\n\n" + "".join(f"{name}={urls[name]}\n" for name in pools))

        live(plans[0], "ab")
        words = (
            "@live",
            "--results",
            str(tmp_path),
            "--pools",
            str(urls_file),
            "--metrics-port",
            str(metrics),
        )
        process = stack.enter_context(router_process(*words))
        load = Load(process.stderr.readline().split()[-1])
        try:
            load.await_more(20)
            first = answers(metrics)
            assert set(first) == {"a", "b"}

            urls_file.write_text("b=ftp://x\n")
            process.send_signal(signal.SIGHUP)
            said = process.stderr.readline()
            assert said.startswith(f"plan {plans[0].short} stays: error: bad pool 'b=ftp://x'")
            load.await_more(20)
            live(plans[1], "ab")
            process.send_signal(signal.SIGHUP)
            assert "missing: c; not in it: a" in process.stderr.readline()
            ref.write_text(json.dumps({"digest": "0" * 64}))
            process.send_signal(signal.SIGHUP)
            assert "stays: error: no artifact with digest" in process.stderr.readline()
            load.await_more(20)
            assert set(answers(metrics)) == {"a", "b"}

            live(plans[1], "bc")
            process.send_signal(signal.SIGHUP)
            assert process.stderr.readline() == f"following plan {plans[1].short}: pools b, c\n"
            load.await_more(8)  # what was under way
            before = answers(metrics)
            load.await_more(40)
            after = answers(metrics)
        finally:
            load.end()
        assert load.failures == [] and set(load.served) == {4}
        assert after["a"] == before["a"]
        assert abs((after["b"] - before["b"]) - (after["c"] - before.get("c", 0))) <= 5  # four are in flight
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
        assert process.wait(timeout=30) == 0
