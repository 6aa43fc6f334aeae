"""Telemetry from the measuring process to the artifact, with stand-ins for vLLM and NVML."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hgpu.artifacts.store import load, save
from hgpu.core.errors import EngineError
from hgpu.latency.select import profile_draft, telemetry_of
from hgpu.profilers.result import ProfileResult
from hgpu.profilers.vllm import VllmJob
from hgpu.report.profile import print_profiles, profiles_json

Profile = Callable[[VllmJob, dict[str, str]], ProfileResult]


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give the stand-in a card that tells this."""
    return lambda **told: monkeypatch.setenv("HGPU_STANDIN_CARD", json.dumps(told))


def test_every_run_has_its_card(job: VllmJob, profile: Profile, card: Callable[..., None]) -> None:
    card()
    result = profile(job, {})
    assert len(result.telemetry) == 9 * job.repeats
    assert {row.cards[0].card for row in result.telemetry} == {"GPU 0"}
    assert not any("GPU" in problem for problem in result.problems)


def test_a_memory_error_leaves_the_runs_out(
    job: VllmJob, profile: Profile, card: Callable[..., None]
) -> None:
    card(ecc=3)
    result = profile(job, {"128": "memory error"})
    assert "prefill-128" not in {sample.script for sample in result.samples}
    assert len({sample.script for sample in result.samples}) == 8
    assert {problem for problem in result.problems if "prefill-128" in problem} == {
        f"prefill-128 doesn't count in run {run}: 1 uncorrected ECC errors on GPU 0" for run in (1, 2)
    }
    assert len(result.telemetry) == 9 * job.repeats


def test_memory_errors_in_every_run_leave_no_profile(
    job: VllmJob, profile: Profile, card: Callable[..., None]
) -> None:
    card()
    with pytest.raises(EngineError, match="nothing of cpu-1core could be measured") as error:
        profile(job, {"any": "memory error"})
    assert "uncorrected ECC errors on GPU 0" in error.value.why and "start afresh" in error.value.fix


def test_the_artifact_keeps_and_the_report_shows_it(
    job: VllmJob,
    profile: Profile,
    card: Callable[..., None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    card(reasons=4, celsius=None)
    result = profile(job, {})
    artifact = load(save(tmp_path, profile_draft(job.model, job.point, result, {})).path)
    assert telemetry_of(artifact) == sorted(result.telemetry, key=lambda row: (row.script, row.repeat))
    throttled = "the GPU was throttled in 100% of the runs: SW power cap in 100%"
    assert throttled in artifact.manifest.validity.reasons
    (row,) = profiles_json([artifact])["profiles"][0]["cards"]
    assert (row["power_max_w"], row["temperature_max_c"]) == (612.345, None)
    print_profiles([artifact])
    printed = capsys.readouterr().out
    assert throttled in printed
    line = next(line for line in printed.splitlines() if "GPU 0" in line and "612" in line)
    assert line.split()[:4] == ["cpu-1core", "GPU", "0", "612/612/700"] and "SW power cap" in line


def test_without_cards_there_is_no_file(
    job: VllmJob, profile: Profile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact = save(tmp_path, profile_draft(job.model, job.point, profile(job, {}), {}))
    assert [row.path for row in artifact.manifest.files] == ["samples.parquet"]
    assert profiles_json([artifact])["profiles"][0]["cards"] == []
    print_profiles([artifact])
    assert "ECC" not in capsys.readouterr().out
