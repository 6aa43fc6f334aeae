"""Prompts have the tokens that were asked for, and share them only where they should."""

import json

from hypothesis import given
from hypothesis import strategies as st

from hgpu.bench.prompts import POOL_UNITS, Prompts, Wording

IDS = Wording(1000, 30000)


def ids(prompts: Prompts, *arguments: object) -> list[int]:
    return json.loads(b"[%b]" % prompts.write(*arguments))


@given(st.integers(1, 3000), st.integers(0, 10**9), st.integers(2, 200000))
def test_prompts_are_valid_json_of_exactly_so_many_ids(tokens: int, number: int, high: int) -> None:
    found = ids(Prompts(Wording(high // 2, high), 3000, (1,)), number, tokens)
    assert len(found) == tokens and all(high // 2 <= token < high for token in found)


def test_the_longest_prompt_at_the_end_of_the_ring_is_whole() -> None:
    prompts = Prompts(IDS, POOL_UNITS + 5, (1,))
    assert all(len(ids(prompts, number, POOL_UNITS + 5)) == POOL_UNITS + 5 for number in (0, 1, 33))


def test_no_two_prompts_begin_alike_and_another_salt_makes_others() -> None:
    prompts, same, others = (Prompts(IDS, 16, (salt,)) for salt in (1, 1, 2))
    written = {prompts.write(number, 16) for number in range(5000)}
    assert len(written) == 5000
    assert not written & {others.write(number, 16) for number in range(5000)}
    assert written == {same.write(number, 16) for number in range(5000)}


def test_equal_hashes_are_equal_tokens_and_nothing_else_is() -> None:
    prompts = Prompts(IDS, 2000, (1,))
    one, two = ids(prompts, 1, 1300, (7, 8, 9), 512), ids(prompts, 2, 1400, (7, 8, 10), 512)
    assert len(one) == 1300 and len(two) == 1400
    assert one[:1024] == two[:1024] and one[1024:1300] != two[1024:1300]
    far = ids(prompts, 3, 512, (7 + POOL_UNITS,), 512)
    assert far != one[:512]


def test_what_blocks_do_not_cover_is_the_requests_own() -> None:
    prompts = Prompts(IDS, 2000, (1,))
    one, two = ids(prompts, 1, 600, (7,), 512), ids(prompts, 2, 600, (7,), 512)
    assert one[:512] == two[:512] and one[512:] != two[512:]


def test_letters_make_room_for_the_template() -> None:
    prompts = Prompts(Wording(template_tokens=10), 100, (1,))
    text = prompts.write(3, 25).decode()
    assert len(text.split()) == 15 and all(len(word) == 1 for word in text.split())
