"""Who may ask what, and how the router ends."""

import asyncio
import json

import pytest
from runtime.router.routed import CHUNKS, STREAM, Gate, post, routing, row, streams

KEY = "canary-5f1c"


def run(scenario):
    asyncio.run(asyncio.wait_for(scenario, 30))


def refused(message, status, *words, **options):
    async def scenario():
        async with routing(streams, **options) as at:
            answer = await at.ask(message, until=b"}}")
            head, _, body = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 %d " % status)
            error = json.loads(body)["error"]
            assert error["code"] == status
            assert all(word in error["message"] for word in words)
            assert KEY not in answer.decode()
            assert at.backends[0].requests == []

    run(scenario())


@pytest.mark.parametrize(
    "given", [(), (b"authorization: Bearer wrong",), (b"authorization: Basic " + KEY.encode(),)]
)
def test_without_the_key_nothing_is_passed_on(given):
    refused(post(b"{}", b"/v1/completions", *given), 401, "API key", key=KEY)


def test_the_key_opens_and_goes_on_to_the_engine():
    async def scenario():
        async with routing(streams, key=KEY) as at:
            assert (
                await at.ask(post(b"{}", b"/v1/completions", b"Authorization: Bearer " + KEY.encode()))
                == STREAM
            )
            assert b"authorization: Bearer " + KEY.encode() in at.backends[0].requests[0][0]

    run(scenario())


@pytest.mark.parametrize(
    "path",
    [
        b"/metrics",
        b"/sleep",
        b"/collective_rpc",
        b"/",
        b"/v2/x",
        b"/../v1/x",
        b"/v1/../sleep",
        b"/v1/%2E%2e/sleep",
        b"/v1/x/..%2fsleep",
        b"/versions",
        b"/v1/load_lora_adapter",
        b"http://other/metrics",
    ],
)
def test_paths_of_the_operator_stay_inside(path):
    refused(post(b"{}", path), 404)


def test_other_methods_are_refused():
    refused(post(b"{}").replace(b"POST", b"DELETE"), 405)


def test_what_is_too_large_is_refused_before_it_is_read():
    refused(
        b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\n", 413, "98", body_bytes=98
    )
    chunked = (
        b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n63\r\n" + b"x" * 99
    )
    refused(chunked, 413, "98", body_bytes=98)
    refused(b"POST /v1/completions HTTP/1.1\r\nx: " + b"y" * 70_000, 431)


@pytest.mark.parametrize(
    "message",
    [
        b"hello\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\nhost: x\r\n\r\n",
    ],
)
def test_what_is_not_plain_http_is_refused(message):
    refused(message, 400)


def test_http_1_0_is_refused():
    refused(b"GET /v1/models HTTP/1.0\r\n\r\n", 505)


def test_an_unknown_tier_is_refused_and_a_known_one_routed():
    rows = [row({"a": 1.0}, tier="gold"), row({"b": 1.0}, tier="batch")]
    refused(post(b"{}", b"/v1/completions", b"x-hgpu-tier: lead"), 400, "lead", "none")

    async def scenario():
        async with routing(streams, streams, rows=rows) as at:
            for _ in range(3):
                await at.ask(post(b"{}", b"/v1/completions", b"X-Hgpu-Tier: batch"))
            assert [len(backend.requests) for backend in at.backends] == [0, 3]

    run(scenario())


def test_health_needs_no_key_and_tells_whether_a_pool_answers():
    async def scenario():
        async with routing(streams, key=KEY, probe_s=0.01) as at:
            question = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
            assert (await at.ask(question, until=b"}")).startswith(b"HTTP/1.1 200 ")
            at.backends[0].healthy = False
            while at.sample("healthy", pool="a"):
                await asyncio.sleep(0.01)
            assert (await at.ask(question, until=b"}}")).startswith(b"HTTP/1.1 503 ")

    run(scenario())


def test_at_the_end_what_is_in_flight_is_answered_and_idle_clients_are_let_go():
    gate = Gate()

    async def scenario():
        async with routing(gate) as at:
            idle_reader, idle_writer = await at.connect()
            while len(at.router.clients) < 1:
                await asyncio.sleep(0)
            asked = asyncio.create_task(at.ask(post()))
            await gate.begun.wait()
            at.stop.set()
            assert await idle_reader.read() == b""
            idle_writer.close()
            with pytest.raises(OSError):
                await at.connect()
            assert not at.serving.done()
            gate.open.set()
            assert await asked == STREAM
            await at.serving

    run(scenario())


def test_a_request_that_never_ends_does_not_hold_the_end_up():
    async def silent(number, reader, writer):
        await reader.read()

    async def scenario():
        async with routing(silent, drain_s=0.1) as at:
            _, writer = await at.connect()
            writer.write(post())
            while not at.router.pools[0].in_flight:
                await asyncio.sleep(0)
            at.stop.set()
            await at.serving
            assert at.router.pools[0].in_flight == 1  # it was given up
            writer.close()

    run(scenario())


def test_a_second_request_that_is_no_http_leaves_the_first_answer_whole():
    gate = Gate()

    async def scenario():
        async with routing(gate) as at:
            reader, writer = await at.connect()
            writer.write(post())
            await gate.begun.wait()
            writer.write(b"\x00 nonsense\r\n\r\n")
            await writer.drain()
            gate.open.set()
            assert await reader.read() == STREAM  # and then the end
            writer.close()
            assert CHUNKS[-1] == STREAM[-5:]

    run(scenario())


def test_a_long_prompt_in_one_piece_leaves_its_connection_open():
    async def scenario():
        async with routing(streams) as at:
            reader, writer = await at.connect()
            for _ in range(2):
                writer.write(post(b'{"prompt": "%b"}' % (b"x" * 120_000)))
                assert await reader.readuntil(CHUNKS[-1]) == STREAM
            assert at.sample("answers_total", pool="", status="431") is None
            writer.close()

    run(scenario())


def test_trailers_are_no_headers():
    async def scenario():
        async with routing(streams) as at:
            head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
            trailers = b"x-hgpu-tier: none\r\nx-evil: 1\r\n"
            assert await at.ask(head + b"2\r\n{}\r\n0\r\n" + trailers + b"\r\n") == STREAM
            assert b"x-evil" not in at.backends[0].requests[0][0]

    run(scenario())


def test_a_body_that_is_mostly_frame_ends():
    head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n"
    refused(head + b"x: " + b"y" * 90_000, 413, body_bytes=10_000)
