"""Trace files: what is read, and every way to refuse one."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from hgpu.core.errors import InputError, UnknownName
from hgpu.workloads.readers import READERS, detect_format, read_trace

ROOT = Path(__file__).parents[2]

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,4808,10
2023-11-16 18:17:04.0319601,3180,0
2023-11-16 18:17:05.9799600,110,27"""

MOONCAKE = """{"timestamp": 0, "input_length": 600, "output_length": 6, "hash_ids": [0, 1]}
{"timestamp": 40, "input_length": 512, "output_length": 3, "hash_ids": [0]}
{"timestamp": 2000, "input_length": 1, "output_length": 0, "hash_ids": [7]}"""


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "trace.dat"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refusal(path: Path, format: str | None = None) -> str:
    with pytest.raises(InputError) as caught:
        read_trace(path, format)
    assert caught.value.fix and caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("begin", ["", "\n", "\ufeff"])
def test_azure_keeps_every_row_and_the_seventh_digit(tmp_path: Path, begin: str, end: str) -> None:
    trace = read_trace(write(tmp_path, begin + AZURE.replace("\n", end) + end))
    assert trace.input_tokens.tolist() == [4808, 3180, 110]
    assert trace.output_tokens.tolist() == [10, 0, 27]
    assert trace.arrivals_s.tolist() == [0.0, 0.0520001, 2.0]
    assert trace.prefix_blocks is None


def test_azure_of_2024_has_offsets_and_columns_in_any_order(tmp_path: Path) -> None:
    rows = [
        "GeneratedTokens,Model,TIMESTAMP,ContextTokens",
        "1,a,2024-05-10 00:00:01.5+00:00,10",
        "2,b,2024-05-10T01:00:00.000000+01:00,20",
        "3,c,2024-05-10 00:00:03Z,30",
    ]
    trace = read_trace(write(tmp_path, "\n".join(rows)))
    assert trace.arrivals_s.tolist() == [0.0, 1.5, 3.0]
    assert trace.input_tokens.tolist() == [20, 10, 30]
    assert trace.output_tokens.tolist() == [2, 1, 3]


def test_mooncake_keeps_every_row_and_its_prefix_blocks(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path, MOONCAKE + "\n\n"))
    assert trace.arrivals_s.tolist() == [0.0, 0.04, 2.0]
    assert trace.input_tokens.tolist() == [600, 512, 1]
    assert trace.output_tokens.tolist() == [6, 3, 0]
    assert trace.prefix_blocks == ((0, 1), (0,), (7,))
    assert trace.block_tokens == 512


def test_mooncake_without_hashes(tmp_path: Path) -> None:
    rows = [
        {key: value for key, value in json.loads(row).items() if key != "hash_ids"}
        for row in MOONCAKE.split("\n")
    ]
    trace = read_trace(write(tmp_path, "\n".join(map(json.dumps, rows))))
    assert trace.prefix_blocks is None and trace.block_tokens is None


@pytest.mark.parametrize(("content", "name"), [(AZURE, "azure"), (MOONCAKE, "mooncake")])
def test_format_shows_in_the_content(tmp_path: Path, content: str, name: str) -> None:
    path = write(tmp_path, content)
    assert detect_format(path) == name
    assert read_trace(str(path), name).name == "trace"
    assert set(READERS) == {"azure", "burstgpt", "mooncake", "sharegpt"}


@pytest.mark.parametrize("content", ["", " \n\n", "\ufeff"])
@pytest.mark.parametrize("format", [None, "azure", "mooncake"])
def test_empty_file(tmp_path: Path, content: str, format: str | None) -> None:
    assert "is empty" in refusal(write(tmp_path, content), format)


def test_header_without_rows(tmp_path: Path) -> None:
    assert "has a header and no rows" in refusal(write(tmp_path, AZURE.split("\n")[0] + "\n"))


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "nothing.csv")
    assert "directory" in refusal(tmp_path)


def test_unknown_format(tmp_path: Path) -> None:
    text = refusal(write(tmp_path, "id,prompt\n1,hello\n"))
    assert "id,prompt" in text and ", ".join(sorted(READERS)) in text
    assert "line 1" in refusal(write(tmp_path, '{"prompt": "hello"}\n'))
    with pytest.raises(UnknownName) as caught:
        read_trace(write(tmp_path, AZURE), "azur")
    assert caught.value.nearest == ["azure"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (bytes(range(128, 256)), "isn't UTF-8"),
        (AZURE.encode() + b"\xff\xfe", "isn't UTF-8"),
        (b"abc\0def", "NUL"),
        (gzip.compress(AZURE.encode()), "gzip"),
        (b"PAR1....", "Parquet"),
    ],
)
def test_binary(tmp_path: Path, content: bytes, why: str) -> None:
    text = refusal(write(tmp_path, content))
    assert "isn't text" in text and why in text


@pytest.mark.parametrize("column", ["TIMESTAMP", "ContextTokens", "GeneratedTokens"])
def test_azure_missing_column(tmp_path: Path, column: str) -> None:
    text = refusal(write(tmp_path, AZURE.replace(column, "Other")))
    assert f"line 1, field {column}" in text


@pytest.mark.parametrize(
    "length", ["-1", "nan", "NaN", "inf", "1.5", "", "many", "1_000", "99999999999999999999", "\u0663"]
)
@pytest.mark.parametrize(("at", "field"), [("3180", "ContextTokens"), ("0\n", "GeneratedTokens")])
def test_azure_bad_length(tmp_path: Path, length: str, at: str, field: str) -> None:
    bad = length + "\n" if at.endswith("\n") else length
    text = refusal(write(tmp_path, AZURE.replace(f",{at}", f",{bad}")))
    assert f"line 3, field {field}" in text and "whole number" in text


@pytest.mark.parametrize(
    "time",
    [
        "",
        "noon",
        "2023-13-16 18:17:04",
        "2023-11-16 25:00:00",
        "2023-11-16",
        "1700158624",
        "2023-11-16 18:17:04+99:00",
    ],
)
def test_azure_bad_timestamp(tmp_path: Path, time: str) -> None:
    text = refusal(write(tmp_path, AZURE.replace("2023-11-16 18:17:04.0319601", time)))
    assert "line 3, field TIMESTAMP" in text and "isn't a timestamp" in text


@pytest.mark.parametrize("cut", [3, 20, 31])
def test_azure_cut_off_in_its_last_line(tmp_path: Path, cut: int) -> None:
    text = refusal(write(tmp_path, AZURE[: AZURE.rindex("\n") + 1 + cut]))
    assert "line 4" in text and ("cut off" in text or "GeneratedTokens" in text)


def test_azure_row_with_too_many_fields_or_a_stray_quote(tmp_path: Path) -> None:
    assert "line 3" in refusal(write(tmp_path, AZURE.replace("3180,0", "3180,0,9")))
    assert "line" in refusal(write(tmp_path, AZURE.replace("3180", '"3180')))
    assert "line 3" in refusal(write(tmp_path, AZURE.replace("2023-11-16 18:17:04.0319601,3180,0", ",,")))


@pytest.mark.parametrize("field", ["timestamp", "input_length", "output_length"])
def test_mooncake_missing_field(tmp_path: Path, field: str) -> None:
    rows = MOONCAKE.split("\n")
    rows[1] = rows[1].replace(field, "other")
    assert f"line 2, field {field}" in refusal(write(tmp_path, "\n".join(rows)))


@pytest.mark.parametrize("length", ["-1", "NaN", "Infinity", "1.5", "null", '"many"', "true", "[]", "1e400"])
@pytest.mark.parametrize(("at", "field"), [("512", "input_length"), ("3,", "output_length")])
def test_mooncake_bad_length(tmp_path: Path, length: str, at: str, field: str) -> None:
    bad = length + "," if at.endswith(",") else length
    text = refusal(write(tmp_path, MOONCAKE.replace(f": {at}", f": {bad}")))
    assert f"line 2, field {field}" in text


@pytest.mark.parametrize("time", ["-1", "NaN", "Infinity", "null", '"40"', "true", "1" + "0" * 400])
def test_mooncake_bad_timestamp(tmp_path: Path, time: str) -> None:
    text = refusal(write(tmp_path, MOONCAKE.replace(": 40,", f": {time},")))
    assert "line 2, field timestamp" in text


@pytest.mark.parametrize("hashes", ["5", '"a"', "[0.5]", "[true]", '["a"]'])
def test_mooncake_bad_hashes(tmp_path: Path, hashes: str) -> None:
    assert "line 2, field hash_ids" in refusal(write(tmp_path, MOONCAKE.replace("[0]", hashes)))


def test_mooncake_hashes_on_some_rows(tmp_path: Path) -> None:
    text = refusal(write(tmp_path, "\n" + MOONCAKE.replace(', "hash_ids": [0]', "")))
    assert "line 3, field hash_ids" in text and "2 of 3" in text


@pytest.mark.parametrize("cut", [1, 30, 70])
def test_mooncake_cut_off_in_its_last_line(tmp_path: Path, cut: int) -> None:
    text = refusal(write(tmp_path, MOONCAKE[: MOONCAKE.rindex("\n") + 1 + cut]))
    assert "line 3" in text and "cut off" in text


def test_mooncake_row_that_is_no_object(tmp_path: Path) -> None:
    rows = MOONCAKE.split("\n")
    for wrong in ("[1, 2]", "12", "nonsense"):
        assert "line 2" in refusal(write(tmp_path, "\n".join([rows[0], wrong, rows[2]])))


def test_reading_needs_no_pandas() -> None:
    code = "import sys, hgpu.workloads.readers, hgpu.workloads.replay; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize(
    ("file", "requests", "mean_input", "rate_rps"),
    [("azure_llm_2023_code.csv", 8819, 2047.85, 2.566), ("mooncake_synthetic.jsonl", 3993, 15325.5, 3.906)],
)
def test_public_traces(file: str, requests: int, mean_input: float, rate_rps: float) -> None:
    path = ROOT.parent / "shared" / "data" / file
    if not path.exists():
        pytest.skip("the public traces are not beside this checkout")
    trace = read_trace(path)
    assert trace.requests == requests
    assert trace.input_tokens.mean() == pytest.approx(mean_input, rel=1e-4)
    assert trace.rate_rps == pytest.approx(rate_rps, rel=1e-3)
