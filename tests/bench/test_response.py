"""Responses taken apart: however their bytes are cut, the same comes of them."""

from array import array
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgpu.bench.exchange import Exchange, kind_of
from hgpu.bench.response import BadResponse, Response

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":3}}\n\n'


def chunk(text: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(text), text)


def completion(*texts: str) -> bytes:
    events = [b'data: {"choices":[{"text":"%b"}],"usage":null}\n\n' % text.encode() for text in texts]
    return HEAD + b"".join(map(chunk, [*events, USAGE, b"data: [DONE]\n\n"])) + b"0\r\n\r\n"


def fed(pieces: list[bytes]) -> tuple[Exchange, list[float], list[bool]]:
    gaps_s = array("d")
    response = Response(gaps_s)
    exchange = Exchange(0, 0.0, 5, 3)
    response.begin(exchange)
    whole = [response.feed(piece, float(moment)) for moment, piece in enumerate(pieces, 1)]
    return exchange, gaps_s.tolist(), whole


@given(st.lists(st.integers(1, 500), max_size=40))
def test_cuts_do_not_matter(cuts: list[int]) -> None:
    content = completion("one", 'a \\"usage\\":{\\"error\\": {', "three")
    places = [0, *sorted({cut % len(content) for cut in cuts}), len(content)]
    pieces = [content[a:b] for a, b in pairwise(places) if b > a]
    exchange, gaps_s, whole = fed(pieces)
    assert whole == [False] * (len(pieces) - 1) + [True]
    assert exchange.verdict() == "" and (exchange.input_tokens, exchange.output_tokens) == (5, 3)
    assert len(gaps_s) == 2 and exchange.first_s + sum(gaps_s) == exchange.last_s
    assert exchange.longest_gap_s == max(gaps_s)


def test_tokens_are_counted_by_the_server_and_timed_by_their_chunks() -> None:
    content = completion("a", "b", "c")
    second = content.index(b'"b"') - 20
    exchange, gaps_s, _ = fed([content[:second], content[second:]])
    assert (exchange.first_s, exchange.last_s, gaps_s) == (1, 2, [1, 0])


def test_the_role_of_a_chat_is_no_token() -> None:
    role = chunk(b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n')
    token = chunk(b'data: {"choices":[{"delta":{"content":""}}]}\n\n')
    exchange, gaps_s, _ = fed([HEAD + role, token, token, chunk(USAGE) + b"0\r\n\r\n"])
    assert exchange.first_s == 2 and gaps_s == [1]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"HTTP/1.1 429 Too Many\r\nContent-Length: 4\r\n\r\nslow", "HTTP 429"),
        (b"HTTP/1.1 500 X\r\ntransfer-encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n", "HTTP 500"),
        (HEAD + chunk(b'data: {"error":{"message":"dead"}}\n\n') + b"0\r\n\r\n", "server error"),
        (HEAD + chunk(USAGE) + b"0\r\n\r\n", "no token"),
        (HEAD + chunk(b'data: {"choices":[{"text":"a"}]}\n\n') + b"0\r\n\r\n", "no usage"),
        (completion("a").replace(b'completion_tokens":3', b'completion_tokens":4'), "output tokens"),
        (completion("a").replace(b'prompt_tokens":5', b'prompt_tokens":6'), "prompt tokens"),
        (completion("a").replace(b'completion_tokens":3', b'completion_tokens":x'), "bad response"),
    ],
)
def test_what_is_wrong_has_a_kind(content: bytes, kind: str) -> None:
    exchange, _, whole = fed([content])
    assert whole == [True] and kind_of(exchange.verdict()) == kind


@pytest.mark.parametrize("content", [b"SSH-2.0\r\n\r\n", HEAD + b"zz\r\nabc\r\n", b"x" * 70000])
def test_what_is_no_response_is_refused(content: bytes) -> None:
    with pytest.raises(BadResponse):
        fed([content])


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    response = Response(array("d"))
    response.begin(Exchange(0, 0.0, 5, 3))
    events = b'data: {"choices":[{"text":"a"}]}\n\n' + USAGE
    assert not response.feed(b"HTTP/1.1 200 OK\r\n\r\n" + events, 1.0)
    assert response.at_end() and not response.keep_alive and response.exchange.verdict() == ""
