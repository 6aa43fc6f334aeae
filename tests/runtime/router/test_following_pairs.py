"""A plan that is followed anew gives pools a prefill engine, or takes it away: no request is lost."""

import asyncio
import signal
import subprocess
import sys
import urllib.request
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from deploy.deploy_standin import payload
from deploy.deploy_standin import row as pool_row
from prometheus_client.parser import text_string_to_metric_families
from runtime.router.routed import STREAM, Gate, post, routing, row, streams
from runtime.router.test_following import Load, plan, router_process, run
from runtime.router.test_handoff import BODY, PROMPT, computes, outcomes

from hgpu.artifacts.store import Draft, save
from hgpu.bench.mock_process import mock_server
from hgpu.runtime.health import Server, wait_healthy
from hgpu.runtime.ports import free_ports, local_url

ONLY_A = [row({"a": 1.0})]
STAND_IN = Path(__file__).parents[2] / "deploy" / "standin_server.py"


def pair(at, shares, **prefill_urls):
    return replace(plan(at, shares), prefill_urls=prefill_urls)


class Computes(Gate):
    """Computes prompts when the test lets it."""

    async def __call__(self, number, reader, writer):
        self.begun.set()
        await self.open.wait()
        await computes(number, reader, writer)


def test_a_pool_gets_a_prefill_engine_and_keeps_its_other_ones_connections():
    async def scenario():
        async with routing(streams, computes, rows=ONLY_A, probe_s=0.01) as at:
            assert await at.ask(post(BODY)) == STREAM
            at.router.follow(pair(at, {"a": 1.0}, a=at.urls["b"]))
            assert list(at.router._probes) == at.router.servers
            assert at.sample("handoffs_total", pool="a", outcome="done") == 0
            assert at.sample("healthy", pool="a/prefill") == 1
            assert at.sample("healthy", pool="b") is None
            assert await at.ask(post(BODY)) == STREAM
            assert outcomes(at) == {"done": 1}
            assert len(at.backends[0].connections) == 1
            at.backends[1].healthy = False
            while at.sample("healthy", pool="a/prefill"):
                await asyncio.sleep(0.005)  # the probes run in threads

    run(scenario())


def test_a_prefill_engine_that_leaves_ends_what_it_is_at_and_gets_no_more():
    async def scenario():
        gate = Computes()
        async with routing(streams, prefill=gate) as at:
            asked = asyncio.create_task(at.ask(post(BODY)))
            await gate.begun.wait()
            at.router.follow(pair(at, {"a": 1.0}))
            assert at.sample("in_flight", pool="a/prefill") == 1
            assert at.sample("healthy", pool="a/prefill") is None
            assert await at.ask(post(BODY)) == STREAM
            gate.open.set()
            assert await asked == STREAM
            await asyncio.wait(at.backends[1].tasks)  # its connections have been closed
            assert len(at.backends[1].requests) == 1 and outcomes(at) == {"done": 1}
            assert list(at.router._probes) == at.router.pools

    run(scenario())


def test_a_request_on_its_way_through_a_pair_that_leaves_takes_the_new_way_at_once():
    async def scenario():
        gate = Computes()
        async with routing(streams, streams, prefill=gate, rows=ONLY_A) as at:
            asked = asyncio.create_task(at.ask(post(BODY)))
            await gate.begun.wait()
            at.router.follow(plan(at, {"b": 1.0}))
            assert await asked == STREAM  # though nobody opens the gate
            assert [len(backend.requests) for backend in at.backends] == [0, 1, 1]
            assert at.backends[1].requests[0][1] == BODY and outcomes(at) == {}
            assert at.router.servers == at.router.pools and at.router.pools[0].in_flight == 0

    run(scenario())


def test_prompts_go_on_to_a_decode_engine_at_another_place_with_the_same_prefill_engine():
    async def scenario():
        async with routing(streams, streams, prefill=computes, rows=ONLY_A) as at:
            assert await at.ask(post(BODY)) == STREAM
            prefill = at.router.pools[0].prefill
            at.router.follow(replace(plan(at, {"a": 1.0}, a=at.urls["b"]), prefill_urls={"a": prefill.url}))
            assert await at.ask(post(BODY)) == STREAM
            assert [len(backend.requests) for backend in at.backends] == [1, 1, 2]
            assert at.router.pools[0].prefill is prefill and len(at.backends[2].connections) == 1

    run(scenario())


@contextmanager
def prefill_engine(folder):
    (port,) = free_ports(1)
    words = [sys.executable, "-S", "-E", str(STAND_IN), str(port)]
    with (folder / "prefill.log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        server = Server("prefill", local_url(port), folder / "prefill.log", lambda: process.poll() is None)
        wait_healthy([server], 30)
        yield server.url
    finally:
        process.kill()
        process.wait()


def samples(port):
    """The router's metrics by name, pool and what other label there is."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    return {
        (sample.name.removeprefix("hgpu_router_"), labels.pop("pool", ""), *labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        for labels in [dict(sample.labels)]
    }


def test_sighup_under_load_adds_a_prefill_engine_and_drops_it_without_losing_a_request(tmp_path):
    made = save(tmp_path, Draft("plan", "chat", payload(pool_row("a"), pool_row("b"))))
    pools = tmp_path / "pools"
    (metrics,) = free_ports(1)
    done = ("handoffs_total", "a", "done")
    with ExitStack() as stack:
        urls = {name: stack.enter_context(mock_server()) for name in "ab"}
        prefill = stack.enter_context(prefill_engine(tmp_path))

        def write(*lines):
            pools.write_text("\n".join([*(f"{name}={url}" for name, url in urls.items()), *lines]))

        def follow(process, *lines):
            write(*lines)
            process.send_signal(signal.SIGHUP)
            return process.stderr.readline()

        write()
        words = (str(made.path), "--pools", str(pools), "--metrics-port", str(metrics))
        process = stack.enter_context(router_process(*words))
        load = Load(process.stderr.readline().split()[-1], prompt=PROMPT)
        try:
            load.await_more(20)
            assert done not in samples(metrics)

            said = follow(process, f"prefill a={prefill}")
            assert said == f"following plan {made.short}: pools a, a/prefill, b\n"
            load.await_more(40)
            paired = samples(metrics)
            assert paired[done] > 10 and paired["healthy", "a/prefill"] == 1
            assert "no pool is called c" in follow(process, f"prefill c={prefill}")
            load.await_more(20)
            assert samples(metrics)[done] > paired[done]

            assert follow(process) == f"following plan {made.short}: pools a, b\n"
            load.await_more(8)  # what was under way
            dropped = samples(metrics)
            load.await_more(40)
            after = samples(metrics)
        finally:
            load.end()
        assert load.failures == [] and set(load.served) == {4}
        assert after[done] == dropped[done] and ("healthy", "a/prefill") not in after
        assert after["answers_total", "a", "200"] > dropped["answers_total", "a", "200"]
        assert {after[key] for key in after if key[:2] == ("handoffs_total", "a")} == {0, after[done]}
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
        assert process.wait(timeout=30) == 0
