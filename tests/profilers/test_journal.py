"""The journal: what was synced is kept, what was torn is dropped, what is foreign is refused."""

from pathlib import Path

import pytest

from hgpu.core.errors import HgpuError, InputError
from hgpu.core.step import StepBatch, prefill_batch
from hgpu.profilers.journal import Failure, Header, Run, Skip, append, read

HEADER = Header("key", "vllm 1", "", "a machine", 4096, 1024)
RUNS = [
    Run("a", 0, ((prefill_batch(16, 4), 0.25), (StepBatch(decode_seqs=2, decode_context_tokens=41), 0.125))),
    Run("b", 0, ((prefill_batch(64), 0.5),)),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "profile.jsonl"
    for entry in (HEADER, Skip("c", "too long"), *RUNS):
        append(file, entry)
    return file


def test_keeps_what_was_appended(path: Path) -> None:
    journal = read(path, "key")
    assert (journal.header, journal.runs, journal.skips) == (HEADER, tuple(RUNS), (Skip("c", "too long"),))
    assert journal.points == {("a", 0), ("b", 0)}


def test_is_empty_where_there_is_none(tmp_path: Path) -> None:
    assert read(tmp_path / "none.jsonl", "key").header is None


def test_any_torn_end_costs_the_last_line_only(path: Path) -> None:
    content = path.read_bytes()
    last = content[:-1].rfind(b"\n") + 1
    for end in range(last, len(content)):
        path.write_bytes(content[:end])
        assert read(path, "key").runs == tuple(RUNS[:1])


def test_appending_cuts_a_torn_line_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])
    append(path, RUNS[1])
    assert read(path, "key").runs == tuple(RUNS)


def test_refuses_another_job(path: Path) -> None:
    with pytest.raises(InputError, match="of another profile"):
        read(path, "another")


def test_refuses_damage_before_the_end(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], b'{"script": \n', *lines[2:]]))
    with pytest.raises(InputError, match="damaged"):
        read(path, "key")


def test_a_failure_stands_until_its_point_is_made(path: Path) -> None:
    for entry in (Failure("b", 0, "done since"), Failure("d", 1, "first"), Failure("d", 1, "second")):
        append(path, entry)
    journal = read(path, "key")
    assert len(journal.failures) == 3 and journal.runs == tuple(RUNS)
    assert journal.unmade == [Failure("d", 1, "second")]


def test_a_disk_that_refuses_is_an_error_of_three_lines(tmp_path: Path) -> None:
    with pytest.raises(HgpuError, match="can't write the journal"):
        append(tmp_path, HEADER)
