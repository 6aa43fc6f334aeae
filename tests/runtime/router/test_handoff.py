"""Pairs of engines: prompts at the one, tokens from the other, and requests where one of them fails."""

import asyncio
import json

import pytest
from runtime.router.routed import CHUNKS, HEAD, STREAM, Gate, hangs_up_after_head, post, routing, row, streams

from hgpu.core.errors import InputError
from hgpu.runtime.router.following import Followed
from hgpu.runtime.router.handoff import prefill_request
from hgpu.runtime.router.request import Request
from hgpu.runtime.router.table import Table

PROMPT = "x" * 600
BODY = json.dumps({"prompt": PROMPT, "max_tokens": 5, "min_tokens": 2, "stream": True, "n": 2}).encode()
CHAT = b"/v1/chat/completions"


def run(scenario):
    asyncio.run(asyncio.wait_for(scenario, 30))


def answering(document, status=200):
    """Answer each request with a JSON document."""

    async def answers(number, reader, writer):
        body = json.dumps(document).encode()
        writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n" % (status, len(body)) + body)

    return answers


computes = answering({"choices": [{"text": "a"}]})


def outcomes(at):
    counts = {
        name: at.sample("handoffs_total", pool="a", outcome=name)
        for name in ("done", "unhealthy", "failed", "late")
    }
    return {name: count for name, count in counts.items() if count}


def test_a_prompt_is_computed_before_its_request_goes_on_as_it_came():
    async def scenario():
        async with routing(streams, prefill=computes) as at:
            assert await at.ask(post(BODY, b"/v1/completions", b"X-Request-Id: 7")) == STREAM
            decode, prefill = at.backends
            assert [body for _, body in decode.requests] == [BODY]
            ((head, body),) = prefill.requests
            assert b"x-request-id: 7" in head
            asked = json.loads(body)
            assert asked.pop("kv_transfer_params")["do_remote_decode"] is True
            assert asked == {"prompt": PROMPT, "max_tokens": 1}
            assert outcomes(at) == {"done": 1}
            assert at.sample("answers_total", pool="a", status="200") == 1
            assert at.sample("in_flight", pool="a/prefill") == 0

    run(scenario())


def test_what_the_prefill_engine_says_is_to_be_fetched_reaches_the_decode_engine():
    where = {"remote_engine_id": "e", "remote_block_ids": [3, 4], "do_remote_prefill": True}

    async def scenario():
        async with routing(streams, prefill=answering({"kv_transfer_params": where})) as at:
            assert await at.ask(post(BODY)) == STREAM
            ((_, body),) = at.backends[0].requests
            assert json.loads(body) == json.loads(BODY) | {"kv_transfer_params": where}

    run(scenario())


def test_chats_are_handed_off_with_their_own_limit():
    asked = {"messages": [{"role": "user", "content": PROMPT}], "max_completion_tokens": 9, "tools": []}

    async def scenario():
        async with routing(streams, prefill=computes) as at:
            assert await at.ask(post(json.dumps(asked).encode(), CHAT)) == STREAM
            sent = json.loads(at.backends[1].requests[0][1])
            assert sent["max_tokens"] == 1 and "max_completion_tokens" not in sent
            assert sent["messages"] == asked["messages"] and sent["tools"] == []

    run(scenario())


@pytest.mark.parametrize("more", [{"echo": True}, {"prompt_logprobs": 1}, {"kv_transfer_params": {"a": 1}}])
def test_what_asks_about_the_prompt_itself_stays_with_one_engine(more):
    body = json.dumps(json.loads(BODY) | more).encode()

    async def scenario():
        async with routing(streams, prefill=computes) as at:
            assert await at.ask(post(body)) == STREAM
            assert at.backends[0].requests[0][1] == body and at.backends[1].requests == []

    run(scenario())


@pytest.mark.parametrize("message", [post(), post(b"not JSON" * 100), post(BODY, b"/v1/embeddings")])
def test_what_has_no_long_prompt_goes_straight_to_the_decode_engine(message):
    async def scenario():
        async with routing(streams, prefill=computes) as at:
            assert await at.ask(message) == STREAM
            assert at.backends[1].requests == [] and outcomes(at) == {}

    run(scenario())


@pytest.mark.parametrize("status", [400, 429, 500, 503])
def test_a_prefill_engine_that_answers_with_an_error_costs_no_request(status):
    async def scenario():
        async with routing(streams, prefill=answering({"error": "?"}, status)) as at:
            assert await at.ask(post(BODY)) == STREAM
            assert at.backends[0].requests[0][1] == BODY
            assert outcomes(at) == {"failed": 1}

    run(scenario())


async def answers_no_json(number, reader, writer):
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n<p>")


@pytest.mark.parametrize("prefill", [hangs_up_after_head, answers_no_json])
def test_a_prefill_engine_that_dies_or_babbles_costs_no_request(prefill):
    async def scenario():
        async with routing(streams, prefill=prefill) as at:
            assert await at.ask(post(BODY)) == STREAM
            assert outcomes(at) == {"failed": 1}
            assert at.sample("in_flight", pool="a/prefill") == 0

    run(scenario())


def test_a_prefill_engine_that_hangs_is_waited_for_no_longer_than_allowed_and_hears_of_it():
    gone = asyncio.Event()

    async def hangs(number, reader, writer):
        try:
            await reader.readexactly(1)
        finally:
            gone.set()

    async def scenario():
        async with routing(streams, prefill=hangs, handoff_s=0.2) as at:
            assert await at.ask(post(BODY)) == STREAM
            assert outcomes(at) == {"late": 1}
            await gone.wait()

    run(scenario())


def test_prompts_leave_a_prefill_engine_that_is_found_ill():
    gate = Gate()

    async def scenario():
        async with routing(streams, prefill=gate, handoff_s=60.0, probe_s=0.05) as at:
            asking = asyncio.create_task(at.ask(post(BODY)))
            await gate.begun.wait()
            at.backends[1].healthy = False  # by its probes; the prompt's connection says nothing
            assert await asking == STREAM
            assert outcomes(at) == {"failed": 1}
            assert await at.ask(post(BODY)) == STREAM  # no longer tried at all
            assert outcomes(at) == {"failed": 1, "unhealthy": 1}
            assert len(at.backends[1].requests) == 1

    run(scenario())


def test_a_prefill_engine_that_is_back_gets_prompts_again():
    async def scenario():
        async with routing(streams, prefill=computes, probe_s=0.05) as at:
            prefill = at.router.pools[0].prefill
            at.router.ill(prefill, "for a test")
            while not prefill.healthy:
                await asyncio.sleep(0.01)
            assert await at.ask(post(BODY)) == STREAM
            assert outcomes(at) == {"done": 1}

    run(scenario())


def test_a_prefill_engine_that_nobody_reaches_costs_no_request():
    async def scenario():
        async with routing(streams, prefill=computes) as at:
            at.servers[1].close()
            assert await at.ask(post(BODY)) == STREAM
            assert outcomes(at) == {"failed": 1}
            assert at.sample("healthy", pool="a/prefill") == 0

    run(scenario())


def test_a_connection_that_the_prefill_engine_closed_meanwhile_costs_no_hand_off():
    async def once(number, reader, writer):
        await computes(number, reader, writer)
        await writer.drain()
        writer.close()

    async def scenario():
        async with routing(streams, prefill=once) as at:
            for _ in range(3):
                assert await at.ask(post(BODY)) == STREAM
            assert outcomes(at) == {"done": 3}

    run(scenario())


def test_a_client_that_goes_during_the_hand_off_leaves_nothing_behind():
    begun, gone = asyncio.Event(), asyncio.Event()

    async def endless(number, reader, writer):
        begun.set()
        try:
            await reader.readexactly(1)
        finally:
            gone.set()

    async def scenario():
        async with routing(streams, prefill=endless) as at:
            _, writer = await at.connect()
            writer.write(post(BODY))
            await begun.wait()
            writer.transport.abort()
            await gone.wait()
            while at.router.clients:
                await asyncio.sleep(0)
            assert at.backends[0].requests == []
            assert [server.in_flight for server in at.router.servers] == [0, 0]

    run(scenario())


def test_where_the_decode_engine_dies_the_prefill_engine_answers_alone():
    async def scenario():
        async with routing(hangs_up_after_head, prefill=streams, handoff_tokens=1000) as at:
            assert await at.ask(post(BODY)) == STREAM
            assert at.backends[1].requests[0][1] == BODY  # whole, not a hand-off
            assert at.sample("answers_total", pool="a/prefill", status="200") == 1

    run(scenario())


def test_a_pair_comes_before_another_pool_and_that_before_what_is_ill():
    async def scenario():
        async with routing(hangs_up_after_head, streams, prefill=streams, rows=[row({"a": 1.0})]) as at:
            at.router.ill(at.router.pools[0], "for a test")
            assert await at.ask(post(BODY)) == STREAM
            assert [len(backend.requests) for backend in at.backends] == [0, 0, 1]
            at.router.ill(at.router.pools[0], "for a test")
            at.router.ill(at.router.pools[0].prefill, "for a test")
            assert await at.ask(post(BODY)) == STREAM
            assert [len(backend.requests) for backend in at.backends] == [0, 1, 1]

    run(scenario())


def test_a_decode_engine_that_comes_back_gets_the_prompt_computed_anew():
    """What was to be fetched may be gone by then."""

    async def second(number, reader, writer):
        await (streams if number > 1 else hangs_up_after_head)(number, reader, writer)

    async def numbered(number, reader, writer):
        alone = b'"stream": true' in at_prefill.requests[-1][1]
        refuses = answering({"error": "busy"}, 503)
        await (refuses if alone else answering({"kv_transfer_params": {"at": number}}))(
            number, reader, writer
        )

    at_prefill = None

    async def scenario():
        nonlocal at_prefill
        async with routing(second, prefill=numbered) as at:
            at_prefill = at.backends[1]
            assert await at.ask(post(BODY)) == STREAM
            fetched = [json.loads(body)["kv_transfer_params"] for _, body in at.backends[0].requests]
            assert fetched == [{"at": 1}, {"at": 3}]

    run(scenario())


def test_only_completions_are_handed_off():
    whole = Request(b"POST", b"/v1/completions?x=1", [], BODY)
    assert prefill_request(whole) is not None
    assert prefill_request(Request(b"GET", b"/v1/completions", [], BODY)) is None
    assert prefill_request(Request(b"POST", b"/v1/models", [], BODY)) is None
    assert prefill_request(Request(b"POST", b"/v1/completions", [], b"[1]")) is None


def test_a_prefill_engine_of_an_unknown_pool_is_refused():
    with pytest.raises(InputError, match="no pool is called b"):
        Followed(Table("a", (1,), []), {"a": "http://x:1"}, prefill_urls={"b": "http://x:2"})


def test_answers_of_a_pair_stream_as_they_come():
    gate = Gate()

    async def slow(number, reader, writer):
        writer.write(HEAD + CHUNKS[0])
        await writer.drain()
        await gate.open.wait()
        writer.write(CHUNKS[1] + CHUNKS[2])

    async def scenario():
        async with routing(slow, prefill=computes) as at:
            reader, writer = await at.connect()
            writer.write(post(BODY))
            assert await reader.readexactly(len(HEAD + CHUNKS[0])) == HEAD + CHUNKS[0]
            gate.open.set()
            assert await reader.readuntil(CHUNKS[2]) == CHUNKS[1] + CHUNKS[2]
            writer.close()

    run(scenario())
