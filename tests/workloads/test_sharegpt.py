import json
from pathlib import Path

import pytest

from hgpu.core.errors import InputError
from hgpu.workloads.readers import detect_format, read_trace


def turns(*texts: str) -> dict[str, object]:
    speakers = ("human", "gpt")
    return {
        "id": "x",
        "conversations": [{"from": speakers[n % 2], "value": text} for n, text in enumerate(texts)],
    }


def written(folder: Path, content: object) -> Path:
    path = folder / "share.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_request_is_the_first_turn_and_its_answer(tmp_path: Path) -> None:
    path = written(tmp_path, [turns("a" * 40, "b" * 9, "c" * 100), turns("alone"), turns("d", "")])
    assert detect_format(path) == "sharegpt"
    trace = read_trace(path)
    assert trace.input_tokens.tolist() == [10, 1] and trace.output_tokens.tolist() == [3, 0]
    assert trace.arrivals_s.tolist() == [0, 0] and "estimated" in trace.source


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[1, 2", "isn't whole JSON"),
        ("[]", "has no request"),
        ([turns("alone")], "has no request"),
        ([turns("a", "b"), {"id": "y"}], "number 1"),
        ([turns("a", "b"), 7], "number 1"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, content: object, told: str) -> None:
    with pytest.raises(InputError) as caught:
        read_trace(written(tmp_path, content))
    assert told in str(caught.value)
