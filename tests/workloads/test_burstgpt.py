from pathlib import Path

import pytest

from hgpu.core.errors import InputError
from hgpu.workloads.readers import detect_format, read_trace

HEADER = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
ROWS = (
    "5,ChatGPT,472,18,490,Conversation log\n45.5,GPT-4,1087,0,1087,API log\n12,ChatGPT,417,276,693,API log\n"
)


def written(folder: Path, content: str) -> Path:
    path = folder / "burst.csv"
    path.write_text(content)
    return path


def test_rows_are_sorted_by_time_and_none_is_dropped(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER + ROWS)
    assert detect_format(path) == "burstgpt"
    trace = read_trace(path)
    assert trace.arrivals_s.tolist() == [0, 7, 40.5]
    assert trace.input_tokens.tolist() == [472, 417, 1087]
    assert trace.output_tokens.tolist() == [18, 276, 0]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (HEADER, "has a header and no rows"),
        (HEADER + "x,GPT,1,1,2,API log\n", "line 2, field Timestamp"),
        (HEADER + "-1,GPT,1,1,2,API log\n", "line 2, field Timestamp"),
        (HEADER + "1,GPT,1.5,1,2,API log\n", "line 2, field Request tokens"),
        (HEADER + "1,GPT,1\n", "line 2"),
        (HEADER + "1,GPT,1,1,2,API log,more\n", "line 2"),
        ("Model,Request tokens\nGPT,1\n", "field Timestamp"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, content: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        read_trace(written(tmp_path, content))
    assert told in str(caught.value)
