"""What becomes of requests and answers on their way."""

import asyncio
import socket

import pytest
from runtime.router.routed import CHUNKS, HEAD, STREAM, hangs_up_after_head, post, routing, row, streams


def run(scenario):
    asyncio.run(asyncio.wait_for(scenario, 30))


def test_answers_come_byte_for_byte_and_requests_keep_their_body():
    async def scenario():
        async with routing(streams) as at:
            body = b'{"prompt": "\xc3\xa9", "max_tokens": 5}'
            answer = await at.ask(
                post(body, b"/v1/completions?x=1", b"X-Request-Id: 7", b"Connection: keep-alive")
            )
            assert answer == STREAM
            ((head, sent),) = at.backends[0].requests
            assert sent == body
            lines = head.split(b"\r\n")
            assert lines[0] == b"POST /v1/completions?x=1 HTTP/1.1"
            assert b"x-request-id: 7" in lines
            assert not any(line.startswith(b"connection") for line in lines)
            assert sum(line.startswith(b"host:") for line in lines) == 1

    run(scenario())


def test_connections_are_kept_on_both_sides():
    async def scenario():
        async with routing(streams) as at:
            reader, writer = await at.connect()
            for _ in range(3):
                writer.write(post())
                assert await reader.readuntil(CHUNKS[-1]) == STREAM
            writer.close()
            assert len(at.backends[0].connections) == 1

    run(scenario())


def test_requests_that_come_at_once_are_answered_in_order():
    async def numbered(number, reader, writer):
        await asyncio.sleep(0.02 / number)  # the later one is the quicker one
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n%d" % number)

    async def scenario():
        async with routing(numbered) as at:
            reader, writer = await at.connect()
            writer.write(post() * 3)
            got = [await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(1) for _ in range(3)]
            assert [answer[-1:] for answer in got] == [b"1", b"2", b"3"]
            writer.close()

    run(scenario())


def test_a_chunked_request_goes_on_whole():
    async def scenario():
        async with routing(streams) as at:
            reader, writer = await at.connect()
            writer.write(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
            for piece in (b'c\r\n{"prompt": "\r\n', b'4\r\nhi"}\r\n', b"0\r\n\r\n"):
                writer.write(piece)
                await writer.drain()
            assert await reader.readuntil(CHUNKS[-1]) == STREAM
            assert at.backends[0].requests[0][1] == b'{"prompt": "hi"}'
            writer.close()

    run(scenario())


def test_a_client_that_asks_before_it_sends_its_body_is_asked_for_it():
    async def scenario():
        async with routing(streams) as at:
            reader, writer = await at.connect()
            head, _, body = post(b'{"prompt": "hi"}', b"/v1/completions", b"expect: 100-continue").partition(
                b"\r\n\r\n"
            )
            writer.write(head + b"\r\n\r\n")
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(body)
            assert await reader.readuntil(CHUNKS[-1]) == STREAM
            writer.close()

    run(scenario())


def test_an_engine_that_dies_before_its_first_token_costs_no_request():
    async def scenario():
        async with routing(hangs_up_after_head, streams, rows=[row({"a": 1.0})]) as at:
            assert await at.ask(post()) == STREAM
            assert len(at.backends[0].requests) == 1
            assert at.sample("failed_tries_total", pool="a") == 1
            assert at.sample("answers_total", pool="b", status="200") == 1

    run(scenario())


def test_a_pool_that_comes_back_in_time_gets_its_requests():
    async def comes_back(number, reader, writer):
        await (streams if number > 2 else hangs_up_after_head)(number, reader, writer)

    async def scenario():
        async with routing(comes_back) as at:
            assert await at.ask(post()) == STREAM
            assert len(at.backends[0].requests) == 3

    run(scenario())


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_server_without_an_engine_counts_as_a_failed_try(status):
    async def without_engine(number, reader, writer):
        writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 4\r\n\r\nnone" % status)

    async def scenario():
        async with routing(without_engine, streams, rows=[row({"a": 1.0})]) as at:
            assert await at.ask(post()) == STREAM

    run(scenario())


@pytest.mark.parametrize("status", [400, 404, 429, 500])
def test_an_engines_own_refusal_is_passed_on(status):
    refusal = b"HTTP/1.1 %d X\r\ncontent-length: 4\r\n\r\nwhy!" % status

    async def refuses(number, reader, writer):
        writer.write(refusal)

    async def scenario():
        async with routing(refuses, streams, rows=[row({"a": 1.0})]) as at:
            assert await at.ask(post(), until=b"why!") == refusal

    run(scenario())


def test_an_answer_that_breaks_off_is_not_ended_for_the_client():
    async def breaks(number, reader, writer):
        writer.write(HEAD + CHUNKS[0])
        await writer.drain()
        await asyncio.sleep(0.05)  # so that the client has it before the reset
        writer.transport.abort()

    async def scenario():
        async with routing(breaks, streams, rows=[row({"a": 1.0})]) as at:
            reader, writer = await at.connect()
            writer.write(post())
            assert await reader.readexactly(len(HEAD + CHUNKS[0])) == HEAD + CHUNKS[0]
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
            writer.close()
            assert at.sample("broken_answers_total", pool="a") == 1
            assert at.backends[1].requests == []

    run(scenario())


def test_where_no_pool_answers_the_client_is_told_so_in_time():
    async def scenario():
        async with routing(hangs_up_after_head, retry_s=0.3) as at:
            answer = await at.ask(post(), until=b"}}")
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 1" in answer
            assert b"no pool has begun to answer" in answer

    run(scenario())


def test_a_connection_that_the_server_closed_meanwhile_costs_nothing():
    async def once(number, reader, writer):
        await streams(number, reader, writer)
        if number == 1:
            writer.close()

    async def scenario():
        async with routing(once) as at:
            for _ in range(3):
                assert await at.ask(post()) == STREAM
            assert at.sample("failed_tries_total", pool="a") == 0

    run(scenario())


def test_an_engine_stops_when_its_client_has_gone():
    gone = asyncio.Event()

    async def endless(number, reader, writer):
        writer.write(HEAD + CHUNKS[0])
        await writer.drain()
        try:
            await reader.readexactly(1)
        finally:
            gone.set()

    async def scenario():
        async with routing(endless) as at:
            reader, writer = await at.connect()
            writer.write(post())
            await reader.readexactly(len(HEAD + CHUNKS[0]))
            writer.transport.abort()
            await gone.wait()
            while at.router.clients:
                await asyncio.sleep(0)
            assert at.router.pools[0].in_flight == 0

    run(scenario())


def test_a_slow_reader_holds_its_engine_back_and_loses_nothing():
    megabytes = 32
    chunk = b"100000\r\n" + b"x" * (1 << 20) + b"\r\n"
    written = []

    async def floods(number, reader, writer):
        writer.write(HEAD)
        for _ in range(megabytes):
            writer.write(chunk)
            await writer.drain()
            written.append(len(chunk))
        writer.write(CHUNKS[-1])

    async def scenario():
        async with routing(floods) as at:
            reader, writer = await at.connect()
            writer.write(post())
            while len(written) < 4:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)  # what could be sent without a reader has been sent
            assert len(written) < megabytes
            assert await reader.readexactly(len(HEAD) + megabytes * len(chunk)) == HEAD + chunk * megabytes
            writer.close()

    run(scenario())


def test_bytes_per_token_are_learned_from_the_engines_counts():
    async def counts(number, reader, writer):
        usage = b'data: {"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":1}}\n\n'
        for part in (HEAD + CHUNKS[0], b"%x\r\n%b\r\n" % (len(usage), usage), CHUNKS[1], CHUNKS[-1]):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.001)  # a packet of its own, as vLLM's are

    async def scenario():
        async with routing(counts, bytes_per_token=4.0) as at:
            for _ in range(100):
                await at.ask(post(b'{"prompt": "%b"}' % (b"x" * 80)))
            assert at.sample("bytes_per_token") == pytest.approx(8.0, abs=0.1)

    run(scenario())


def test_a_connection_that_was_held_back_serves_the_next_request():
    """The last bytes of an answer may be what fills a slow client's buffer: the pool's side must go on."""
    chunk = b"40000\r\n" + b"x" * (1 << 18) + b"\r\n"
    flood = HEAD + chunk * 2 + b"1c000\r\n" + b"x" * 0x1C000 + b"\r\n" + CHUNKS[-1]

    async def floods_first(number, reader, writer):
        if number == 1:
            writer.write(flood)
            await writer.drain()
        else:
            await streams(number, reader, writer)

    async def scenario():
        async with routing(floods_first) as at:
            reader, writer = await at.connect()
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
            while not at.router.clients:
                await asyncio.sleep(0)
            (client,) = at.router.clients
            narrow = client._transport.get_extra_info("socket")
            narrow.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
            writer.write(post())
            got = 0
            while not at.router.pools[0].idle:  # the answer has left the pool
                got += len(await reader.read(4096))
            assert got < len(flood)  # and isn't with the client yet
            assert await at.ask(post()) == STREAM
            assert len(at.backends[0].connections) == 1
            assert len(await reader.readexactly(len(flood) - got)) == len(flood) - got
            writer.close()

    run(scenario())


def test_a_client_that_leaves_while_a_second_pool_is_tried_leaves_nothing_behind():
    accepted = asyncio.Event()

    async def silent(number, reader, writer):
        accepted.set()
        await reader.read()

    async def scenario():
        async with routing(streams, silent, rows=[row({"a": 1.0})]) as at:
            at.servers[0].close()  # nothing listens there any more
            connecting = asyncio.Event()
            real = asyncio.get_running_loop().create_connection

            async def slow(*words, **more):
                if words[2] == at.router.pools[1].port:
                    connecting.set()
                    await asyncio.sleep(0.2)
                return await real(*words, **more)

            asyncio.get_running_loop().create_connection = slow
            _, writer = await at.connect()
            writer.write(post())
            await connecting.wait()
            writer.transport.abort()
            while at.router.clients:
                await asyncio.sleep(0)
            await asyncio.sleep(0.4)  # had the connection been made, it would have been by now
            assert at.backends[1].requests == [] and not accepted.is_set()
            assert [pool.in_flight for pool in at.router.pools] == [0, 0]

    run(scenario())
