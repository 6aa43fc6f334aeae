"""The files of a dataset: which documents are read, and how bad ones are refused."""

import json
from pathlib import Path

import pytest

from hgpu.core.errors import InputError
from hgpu.tuning.documents import Chat, Example, Text, read_documents


def test_a_text_file_is_one_document_and_each_line_of_json_one(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("one\ntwo\n")
    (tmp_path / "a.jsonl").write_text('{"text": "three"}\n\n{"text": "four", "id": 1}\n')
    (tmp_path / "notes.md").write_text("not data")
    assert read_documents(str(tmp_path / "b.txt")) == [Text("one\ntwo\n")]
    assert read_documents(str(tmp_path)) == [Text("three"), Text("four"), Text("one\ntwo\n")]


def test_prompts_and_chats_are_read_too(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "2 + 2 =", "completion": " 4", "from": "school"}\n')
    assert read_documents(str(tmp_path / "pairs.jsonl")) == [Example("2 + 2 =", " 4")]
    messages = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4\u2028"}]
    line = json.dumps({"messages": messages}, ensure_ascii=False)  # a line of JSON may hold other line ends
    (tmp_path / "chats.jsonl").write_text(line + "\n", encoding="utf-8")
    assert read_documents(str(tmp_path / "chats.jsonl")) == [Chat(messages)]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("d.jsonl", b'{"text": "a"}\n{"text":\n', "line 2: not JSON"),
        ("d.jsonl", b'{"words": "a"}\n', "line 1: no text"),
        ("d.jsonl", b"[1]\n", "line 1: no text"),
        ("d.jsonl", b'{"prompt": "a"}\n', "line 1: no text"),
        (
            "d.jsonl",
            b'{"text": "a"}\n{"prompt": "a", "completion": "b"}\n',
            "line 2: another kind of document",
        ),
        ("d.jsonl", b'{"messages": [{"role": "user"}]}\n', "line 1: message 1 isn't one"),
        ("d.jsonl", b'{"messages": []}\n', "line 1: nothing to learn"),
        (
            "d.jsonl",
            b'{"messages": [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]}',
            "line 1: nothing to learn",
        ),
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
