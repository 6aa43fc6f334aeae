"""An engine that fails, hangs, dies or counts garbage costs the script that it failed at, and says so."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from hgpu.core.errors import EngineError, InputError
from hgpu.profilers.journal import Journal, read
from hgpu.profilers.vllm import VllmJob, journal_path

SCRIPTS = 9  # of the job's design


def starts(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "starts").read_text().split()]


def journal_of(job: VllmJob, folder: Path) -> Journal:
    return read(journal_path(job, folder), job.key)


def test_a_sound_engine_is_started_once(job: VllmJob, profile, tmp_path: Path) -> None:
    result = profile(job, {})
    assert len(starts(tmp_path)) == 1
    assert len({sample.script for sample in result.samples}) == SCRIPTS
    assert not any("failed" in problem for problem in result.problems)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (
            "out of memory",
            "it ran out of memory (RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB.)",
        ),
        ("refuses", "vLLM computed nothing in 100 steps: no room"),
        ("killed", "the engine died (SIGKILL): it wrote nothing to its log"),
        ("exits", "the engine died (exit status 3): RuntimeError: NCCL error"),
        ("nan", "a step took nan s"),
        ("inf", "a step took inf s"),
        ("0", "a step took 0.0 s"),
        ("-1", "a step took -137.0 s"),
    ],
)
def test_a_failed_script_is_left_out_with_its_reason(
    job: VllmJob, profile, tmp_path: Path, fault: str, reason: str
) -> None:
    result = profile(job, {"128": fault})
    assert f"prefill-128 failed in run 1: {reason}" in result.problems
    measured = {sample.script for sample in result.samples}
    assert len(measured) == SCRIPTS - 1 and "prefill-128" not in measured
    assert len(starts(tmp_path)) == 2
    journal = journal_of(job, tmp_path)
    counts = Counter(run.script for run in journal.runs)
    assert set(counts.values()) == {job.repeats} and len(journal.failures) == 1


def test_a_hung_engine_is_stopped(job: VllmJob, profile, tmp_path: Path) -> None:
    result = profile(replace(job, point_limit_s=3), {"384": "hangs"})
    reason = "prefill-384 failed in run 1: the engine was stopped: it said nothing for 3 s"
    assert reason in result.problems
    assert len({sample.script for sample in result.samples}) == SCRIPTS - 1
    assert not any(psutil.pid_exists(pid) for pid in starts(tmp_path))


def test_two_failures_take_two_restarts(job: VllmJob, profile, tmp_path: Path) -> None:
    result = profile(job, {"128": "killed", "31": "out of memory"})
    assert {problem.split()[0] for problem in result.problems if " failed " in problem} == {
        "prefill-128",
        "decode-1x256+31",
    }
    assert len(starts(tmp_path)) == 3
    assert {sample.script for sample in result.samples}.isdisjoint({"prefill-128", "decode-1x256+31"})


def test_a_failure_in_a_repeat_for_certainty_costs_that_repeat(
    job: VllmJob, profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HGPU_STANDIN_AFTER", str(2 * SCRIPTS + 1))
    uncertain = replace(job, budget_s=0.02, target_error=0.02)
    result = profile(uncertain, {"any": "killed"})
    journal = journal_of(uncertain, tmp_path)
    failure = journal.failures[0]
    assert failure.repeat >= job.repeats
    assert f"{failure.script} failed in run {failure.repeat + 1}: " in "\n".join(result.problems)
    assert len({sample.script for sample in result.samples}) == SCRIPTS
    assert len(journal.runs) > 2 * SCRIPTS + 1 and len(starts(tmp_path)) == len(journal.failures) + 1


def test_an_engine_that_fails_everywhere_is_an_error(job: VllmJob, profile, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="vLLM failed at 6 scripts: prefill-16, ") as error:
        profile(job, {"any": "out of memory"})
    assert "it ran out of memory" in error.value.why and "0 finished points" in error.value.fix
    assert len(starts(tmp_path)) == 6


def test_where_nothing_is_measured_there_is_no_profile(job: VllmJob, profile, tmp_path: Path) -> None:
    tiny = replace(job.point.engine, max_num_batched_tokens=16, max_num_seqs=1, max_model_len=96)
    little = replace(job, point=replace(job.point, engine=tiny), repeats=1)
    with pytest.raises(EngineError, match="nothing of cpu-1core could be measured") as error:
        profile(little, {"any": "killed"})
    assert "SIGKILL" in error.value.why
    assert len(starts(tmp_path)) == len(journal_of(little, tmp_path).failures)


def test_the_next_start_tries_again(job: VllmJob, profile, tmp_path: Path) -> None:
    first = profile(job, {"128": "killed"})
    again = profile(job, {})
    assert any("prefill-128 failed" in problem for problem in first.problems)
    assert not any("prefill-128 failed" in problem for problem in again.problems)
    assert len({sample.script for sample in again.samples}) == SCRIPTS
    assert len(starts(tmp_path)) == 3


@pytest.mark.parametrize(
    ("fault", "what", "why"),
    [
        ("hangs", "said nothing for 5 s", "nothing to its log"),
        ("exits", "exit status 3", "RuntimeError: NCCL error"),
        ("out of memory", "exit status 1", "RuntimeError: CUDA out of memory"),
        ("chatters", "said what isn't an event", ""),
    ],
)
def test_an_engine_that_does_not_start_is_an_error(
    job: VllmJob, profile, fault: str, what: str, why: str
) -> None:
    with pytest.raises(EngineError, match="vLLM failed") as error:
        profile(replace(job, start_limit_s=5 if fault == "hangs" else 60), {"start": fault})
    assert what in error.value.what and why in error.value.why
    assert "0 finished points are kept" in error.value.fix


def test_heads_that_ranks_can_not_share_are_refused(job: VllmJob, profile, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"3 ranks can't share.*32 attention heads and 8 KV heads"):
        profile(replace(job, point=replace(job.point, tp=3)), {})
    assert not (tmp_path / "starts").exists()
