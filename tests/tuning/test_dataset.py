"""Text files to sequences: what is read, what is held out, and which rows a step takes."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgpu.core.errors import InputError
from hgpu.tuning.dataset import numbers_of_step, pack, read_documents
from hgpu.tuning.schedule import rate_at

END = 0


def encode(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def test_a_text_file_is_one_document_and_each_line_of_json_one(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("one\ntwo\n")
    (tmp_path / "a.jsonl").write_text('{"text": "three"}\n\n{"text": "four", "id": 1}\n')
    (tmp_path / "notes.md").write_text("not data")
    assert read_documents(str(tmp_path / "b.txt")) == ["one\ntwo\n"]
    assert read_documents(str(tmp_path)) == ["three", "four", "one\ntwo\n"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("d.jsonl", b'{"text": "a"}\n{"text":\n', "line 2: not JSON"),
        ("d.jsonl", b'{"words": "a"}\n', "line 1: no text"),
        ("d.jsonl", b"[1]\n", "line 1: no text"),
        ("d.txt", b"\xff\xfe", "can't read data"),
        ("d.csv", b"text\na\n", "can't read data"),
        ("none.txt", None, "can't read data"),
    ],
)
def test_bad_data_is_refused_by_file_and_line(
    tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=said) as raised:
        read_documents(str(tmp_path / name))
    assert name in raised.value.what and raised.value.fix


def test_a_folder_without_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no data"):
        read_documents(str(tmp_path))


@given(st.lists(st.text("abc", max_size=200), max_size=30), st.integers(1, 20))
def test_rows_hold_all_tokens_but_the_last_few_and_none_twice(texts: list[str], context: int) -> None:
    tokens = [token for text in texts for token in (*encode(text), END)]
    if len(tokens) < context:
        with pytest.raises(InputError, match="too little data"):
            pack(texts, encode, END, context)
        return
    packed = pack(texts, encode, END, context)
    count = len(tokens) // context
    assert len(packed.train) + len(packed.held_out) == count
    assert len(packed.held_out) == min(count // 20, 64)
    rows = sorted(map(tuple, np.concatenate((packed.train, packed.held_out)).tolist()))
    assert rows == sorted(tuple(tokens[n * context : (n + 1) * context]) for n in range(count))


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
