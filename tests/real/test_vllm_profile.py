"""Real vLLM on one core: it is measured, it survives a kill, and it fails with a reason."""

import importlib.util
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median

import psutil
import pytest

from hgpu.core.errors import EngineError, HgpuError, InputError
from hgpu.core.gpu import DType
from hgpu.core.provenance import Provenance
from hgpu.profilers.journal import Header, Journal, append, read
from hgpu.profilers.result import ProfileResult
from hgpu.profilers.vllm import VllmJob, forget_journal, journal_path, profile_vllm

pytestmark = pytest.mark.vllm
HERE = Path(__file__).parent


def small_job(folder: Path) -> VllmJob:
    spec = importlib.util.spec_from_file_location("profile_once", HERE / "profile_once.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.small_job(folder)


@pytest.fixture(scope="module")
def job(small_model: Path) -> VllmJob:
    return small_job(small_model)


@pytest.fixture(scope="module")
def killed(job: VllmJob, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Journal, list]:
    """Kill a profile after four points; return its folder, its journal, and its processes."""
    folder = tmp_path_factory.mktemp("killed")
    command = [sys.executable, str(HERE / "profile_once.py"), job.source, str(folder)]
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[1])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        for line in parent.stdout:
            if line.startswith("4 "):
                break
        started = psutil.Process(parent.pid).children(recursive=True)
        parent.send_signal(signal.SIGKILL)
    return folder, read(journal_path(job, folder), job.key), started


@pytest.fixture(scope="module")
def resumed(job: VllmJob, killed: tuple[Path, Journal, list]) -> ProfileResult:
    return profile_vllm(job, killed[0], lambda *_: None)


def test_a_kill_leaves_no_process_behind(killed: tuple[Path, Journal, list]) -> None:
    _, _, started = killed
    assert started
    assert psutil.wait_procs(started, timeout=30)[1] == []


def test_a_killed_profile_goes_on_where_it_stopped(
    job: VllmJob, killed: tuple[Path, Journal, list], resumed: ProfileResult
) -> None:
    folder, before, _ = killed
    after = read(journal_path(job, folder), job.key)
    assert len(before.runs) >= 4
    assert after.runs[: len(before.runs)] == before.runs
    points = [(run.script, run.repeat) for run in after.runs]
    assert len(points) == len(set(points))
    scripts = {script for script, _ in points}
    assert set(points) == {(script, repeat) for script in scripts for repeat in range(job.repeats)}
    assert {sample.script for sample in resumed.samples} == scripts


def test_samples_are_measured_and_grow_with_the_work(job: VllmJob, resumed: ProfileResult) -> None:
    assert (resumed.profiler, resumed.provenance) == ("vllm", Provenance.MEASURED)
    assert resumed.engine.startswith("vllm ")
    assert resumed.machine.endswith("1 cores")
    assert resumed.kv_capacity_tokens > 10_000
    assert {sample.batch.phase for sample in resumed.samples} == {"prefill", "decode", "mixed"}
    step_s = {s.batch.prefill_tokens: s.step_s for s in resumed.samples if s.script.startswith("prefill-")}
    assert step_s[128] > step_s[16] > 0
    decodes = [s for s in resumed.samples if s.batch.phase == "decode"]
    assert {s.batch.decode_seqs for s in decodes} == {1, 2, 4}
    assert all(s.repeats == job.repeats * job.decode_steps for s in decodes)
    assert median(s.step_s for s in decodes) < step_s[128]


def test_an_8_bit_cache_holds_four_times_the_tokens_of_a_32_bit_one(
    job: VllmJob, resumed: ProfileResult, tmp_path: Path
) -> None:
    engine = replace(job.point.engine, kv_cache_dtype=DType.FP8)
    eight = profile_vllm(
        replace(job, repeats=1, point=replace(job.point, engine=engine)), tmp_path, lambda *_: None
    )
    assert eight.kv_capacity_tokens == 4 * resumed.kv_capacity_tokens
    expected = job.model.cached_in(DType.FP8).kv_bytes_per_token * eight.kv_capacity_tokens
    assert expected == pytest.approx(engine.kv_cache_bytes, rel=0.01)


def test_a_finished_journal_measures_nothing_again(
    job: VllmJob, killed: tuple[Path, Journal, list], resumed: ProfileResult
) -> None:
    again = profile_vllm(job, killed[0], lambda *_: None)
    assert again.samples == resumed.samples
    forget_journal(job, killed[0])
    assert list((killed[0] / "journal").iterdir()) == []


def test_two_profiles_of_a_job_do_not_mix(job: VllmJob, tmp_path: Path) -> None:
    def second(*_: object) -> None:
        profile_vllm(job, tmp_path, lambda *_: None)

    before = set(psutil.Process().children(recursive=True))  # other tests may leave zombies to this process
    with pytest.raises(HgpuError, match="being measured already"):
        profile_vllm(job, tmp_path, second)
    assert set(psutil.Process().children(recursive=True)) <= before


def test_a_missing_model_is_refused_at_once(job: VllmJob, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model in"):
        profile_vllm(replace(job, source=str(tmp_path / "none")), tmp_path, lambda *_: None)


def test_a_model_that_does_not_load_says_why_and_keeps_the_log(job: VllmJob, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text('{"model_type": "no-such-model", "architectures": ["None"]}')
    with pytest.raises(EngineError, match="vLLM failed") as error:
        profile_vllm(replace(job, source=str(broken)), tmp_path, lambda *_: None)
    assert "no-such-model" in error.value.why
    assert "0 finished points" in error.value.fix


def test_an_absent_vllm_names_the_remedy(job: VllmJob, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')  # without installed packages
    python.chmod(0o755)
    with pytest.raises(EngineError, match=r"vLLM isn't installed.*hgpu\[vllm\]"):
        profile_vllm(job, tmp_path, lambda *_: None, python=str(python))


def test_a_foreign_journal_is_refused_before_an_engine_starts(job: VllmJob, tmp_path: Path) -> None:
    path = journal_path(job, tmp_path)
    path.parent.mkdir()
    append(path, Header("another", "vllm 0", "", "elsewhere", 1, 1))
    with pytest.raises(InputError, match="of another profile"):
        profile_vllm(job, tmp_path, lambda *_: None)
