"""Tokens to sequences: what is learned, what is held out, and which rows a step takes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgpu.core.errors import InputError
from hgpu.tuning.dataset import NOT_LEARNED, Rows, fill, numbers_of_step, pack
from hgpu.tuning.schedule import rate_at

END = 0


def encode(text: str) -> list[int]:
    return [ord(letter) for letter in text]


@given(st.lists(st.text("abc", max_size=200), max_size=30), st.integers(2, 20))
def test_rows_hold_all_tokens_but_the_last_few_and_none_twice(texts: list[str], context: int) -> None:
    documents = [encode(text) for text in texts]
    tokens = [token for document in documents for token in (*document, END)]
    if len(tokens) < context:
        with pytest.raises(InputError, match="too little data"):
            pack(documents, END, context)
        return
    packed = pack(documents, END, context)
    count = len(tokens) // context
    assert len(packed.train) + len(packed.held_out) == count
    assert len(packed.held_out) == min(count // 20, 64)
    rows = sorted(map(tuple, np.concatenate((packed.train.tokens, packed.held_out.tokens)).tolist()))
    assert packed.train.learned == len(packed.train) * (context - 1), "all but the first of a row is learned"
    assert rows == sorted(tuple(tokens[n * context : (n + 1) * context]) for n in range(count))


EXAMPLES = st.lists(
    st.tuples(
        st.lists(st.integers(0, 9), min_size=1, max_size=8),
        st.lists(st.integers(0, 9), min_size=1, max_size=6),
    ),
    min_size=1,
    max_size=45,
)


@given(EXAMPLES, st.integers(1, 8))
def test_a_row_has_an_example_of_which_the_completion_is_learned(
    examples: list[tuple[list[int], list[int]]], size: int
) -> None:
    made = fill(examples, END, 14)
    assert len(made.held_out) == len(examples) // 20 and made.documents == len(examples)
    found = []
    for rows in (made.train, made.held_out):
        parts = rows.parts(size)
        assert sum(len(part) for part in parts) == len(rows) and all(len(part) <= size for part in parts)
        assert sum(part.learned for part in parts) == rows.learned
        for part in parts:
            assert part.tokens.shape == part.labels.shape == (len(part), part.lengths.max())
            for tokens, labels, length in zip(part.tokens, part.labels, part.lengths, strict=True):
                learned = labels != NOT_LEARNED
                assert (tokens[learned] == labels[learned]).all() and (tokens[length:] == END).all()
                found.append((tokens[:length][~learned[:length]].tolist(), tokens[learned].tolist()))
    assert sorted(found) == sorted(examples)


@pytest.mark.parametrize(
    ("examples", "said"),
    [
        ([([1] * 4, [2] * 4), ([1] * 5, [2] * 4), ([1] * 9, [2])], "2 of 3 examples don't fit"),
        ([([1], [2]), ([], [2])], "1 of 2 examples have nothing to learn"),
    ],
)
def test_examples_that_cannot_be_rows_are_counted(
    examples: list[tuple[list[int], list[int]]], said: str
) -> None:
    with pytest.raises(InputError, match=said) as raised:
        fill(examples, END, 8)
    assert "context to 10" in raised.value.fix or "take them out" in raised.value.fix


def test_a_context_of_one_token_is_refused() -> None:
    with pytest.raises(InputError, match="teaches nothing"):
        pack([[1, 2, 3]], END, 1)


def test_rows_are_taken_by_number_and_by_slice() -> None:
    rows = Rows(np.arange(6).reshape(3, 2), np.arange(6).reshape(3, 2))
    assert rows[[2, 0]].tokens.tolist() == [[4, 5], [0, 1]] and rows[1::2].labels.tolist() == [[2, 3]]


@given(st.integers(1, 50), st.integers(1, 9), st.integers(0, 5))
def test_each_epoch_takes_every_row_once_in_an_order_of_its_own(count: int, batch: int, seed: int) -> None:
    taken = [number for step in range(2 * count) for number in numbers_of_step(step, batch, count, seed)]
    for epoch in range(2):
        assert sorted(taken[epoch * count : (epoch + 1) * count]) == list(range(count))
    assert numbers_of_step(count, batch, count, seed) == taken[count * batch : (count + 1) * batch]


def test_orders_differ_by_epoch_and_seed() -> None:
    def order(step: int, seed: int) -> list[int]:
        return numbers_of_step(step, 40, 40, seed)

    assert order(0, 0) != order(1, 0) and order(0, 0) != order(0, 1)


def test_the_rate_rises_over_the_warm_up_and_falls_to_its_last_step() -> None:
    rates = [rate_at(step, 100, 9) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == rates[9] == 1.0
    assert rates[9:] == sorted(rates[9:], reverse=True) and rates[-1] == pytest.approx(1 / 91)
    assert [rate_at(step, 4, 0) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]
