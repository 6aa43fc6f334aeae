"""Real vLLM on two cores: tensor parallel ranks are processes, and one that dies costs its point."""

import os
from pathlib import Path

import psutil
import pytest

from hgpu.catalog.gpus import resolve_gpu
from hgpu.catalog.models import load_model
from hgpu.core.gpu import DType
from hgpu.core.operating_point import EngineOptions, OperatingPoint
from hgpu.profilers.journal import read
from hgpu.profilers.vllm import VllmJob, journal_path, profile_vllm
from hgpu.profilers.vllm_job import missing
from hgpu.runtime.tiny_model import make_tiny_model

CORES = tuple(sorted(os.sched_getaffinity(0)))
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(len(CORES) < 2, reason="two ranks take two cores"),
]

CPU = resolve_gpu("cpu-1core")
ENGINE = EngineOptions(
    max_num_batched_tokens=32, max_num_seqs=2, max_model_len=256, enforce_eager=True, kv_cache_bytes=2**30
)


@pytest.fixture
def job(tmp_path: Path) -> VllmJob:
    """Return a job of seconds for a model whose four heads two ranks can share.

    Its many repeats are points yet to come when a rank is killed at the first.
    """
    folder = make_tiny_model(tmp_path / "even", hidden_size=256, layers=4)
    model = load_model(str(folder), DType.FP32)
    point = OperatingPoint(CPU.name, 2, dtype=DType.FP32, engine=ENGINE)
    return VllmJob(str(folder), model, CPU, point, "dummy", 100, 4, 64, cores=CORES[:2], point_limit_s=60)


def test_two_ranks_are_measured_and_one_that_dies_costs_its_point(job: VllmJob, tmp_path: Path) -> None:
    cores: list[list[int]] = []
    workers: list[psutil.Process] = []
    before = {process.pid for process in psutil.Process().children(recursive=True)}

    def kill_a_rank(done: int, *_: object) -> None:
        if not workers:
            workers.extend(p for p in psutil.Process().children() if p.pid not in before)
        if done != 1 or cores:
            return
        (worker,) = workers
        worker.suspend()
        ranks = [process for process in worker.children() if "VLLM::Worker" in process.cmdline()[0]]
        cores.extend(rank.cpu_affinity() for rank in ranks)
        ranks[-1].kill()
        worker.resume()

    result = profile_vllm(job, tmp_path, kill_a_rank)
    assert sorted(cores) == [[core] for core in job.cores]
    journal = read(journal_path(job, tmp_path), job.key)
    (lost,) = journal.failures
    assert f"{lost.script} failed in run {lost.repeat + 1}: {lost.reason}" in result.problems
    left = missing(job.for_worker(journal_path(job, tmp_path)), journal)
    assert {script.name for script, _ in left} == {lost.script}
    assert {sample.batch.phase for sample in result.samples} == {"prefill", "decode", "mixed"}
    zombies = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    left_over = [p for p in psutil.Process().children(recursive=True) if p.pid not in before]
    assert [p for p in left_over if p.status() not in zombies] == []
