"""How large requests are said to be."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgpu.runtime.router.size import Size, size_of


@pytest.mark.parametrize(
    ("document", "size"),
    [
        ({"prompt": "héllo"}, Size(6, 0, None)),
        ({"prompt": [1, 2, 3], "max_tokens": 7}, Size(0, 3, 7)),
        ({"prompt": ["a", "abc", "ab"]}, Size(3, 0, None)),
        ({"prompt": [[1], [1, 2]], "max_tokens": None}, Size(0, 2, None)),
        ({"prompt": []}, Size(0, 0, None)),
        (
            {"messages": [{"role": "user", "content": "abc"}, {"content": [{"text": "de"}, {"x": 1}]}]},
            Size(5, 0, None),
        ),
        ({"messages": [{"role": "assistant", "content": None}], "max_completion_tokens": 9}, Size(0, 0, 9)),
        ({"prompt": "a", "max_tokens": "many"}, Size(1, 0, None)),
        ({"prompt": "a", "max_tokens": -1}, Size(1, 0, None)),
    ],
)
def test_sizes(document, size):
    assert size_of(json.dumps(document).encode()) == size


@pytest.mark.parametrize("body", [b"", b"[" * 100_000, b"nonsense", b"[1]", b"\xff\xfe", b'{"prompt": "a"'])
def test_what_is_no_request_counts_by_its_bytes(body):
    assert size_of(body) == Size(len(body), 0, None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.dictionaries(st.sampled_from(["prompt", "messages", "max_tokens", "max_completion_tokens"]), JSON))
def test_no_body_breaks_the_router(document):
    size = size_of(json.dumps(document).encode())
    assert size.text_bytes >= 0 and size.token_ids >= 0
    assert size.max_tokens is None or size.max_tokens > 0
