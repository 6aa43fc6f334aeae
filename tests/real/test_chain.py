"""The whole chain through the command line, on one core with real vLLM."""

import json
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests_types import Run

from hgpu.bench.arrivals import CLOSED, Load, schedule
from hgpu.bench.play import Job, play
from hgpu.bench.prompts import Wording
from hgpu.bench.target import Target
from hgpu.bench.verify import LAG_LIMIT
from hgpu.runtime.completion import complete, served_model

SPEC = """kind: serve
model: {model}
dtype: fp32
workload:
  lengths: uniform:16-96x8-24
  rate_rps: 1
  input_edges: [1, 128]
  output_edges: [1, 32]
slo: {{tpot_ms: 2000, ttft_ms: 20000, percentile: 90}}
gpus: [cpu-1core]
engine: {{max_num_batched_tokens: 128, max_num_seqs: 4, max_model_len: 512, enforce_eager: true}}
offers: {{book: {book}, markets: [owned]}}
min_engines: 2
"""
BOOK = """offers:
  - {cloud: x, instance_type: one, region: here, market: owned, gpu: cpu-1core, gpu_count: 1, available: 1,
     usd_per_hour: 0.05, price_date: 2026-01-01, source: made for a test}
  - {cloud: x, instance_type: two, region: here, market: owned, gpu: cpu-1core, gpu_count: 1, available: 1,
     usd_per_hour: 0.06, price_date: 2026-01-01, source: made for a test}
"""


def measured(hgpu: Run, plan: str, url: str) -> dict[str, Any]:
    """Measure the plan, and check what it says of itself: it is valid, or it says that the harness was late.

    The engines hold every core of a small machine, so whether the harness is on time is the machine's affair.
    """
    done = hgpu("bench", "verify", plan, url, "--duration", "10", "--json")
    assert done.returncode in (0, 4), done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    row = document["rows"][0]
    late = row["harness_lag_p99_s"] > LAG_LIMIT * row["ttft_s"]["mean"]
    assert (done.returncode, "late at p99" in done.stderr) == ((4, True) if late else (0, False)), done.stderr
    return document


def killed_and_back(call: Callable[..., dict[str, Any]]) -> None:
    """Kill an engine with SIGKILL and return when the deployment is whole again, by itself."""

    def slots() -> tuple[str, dict[str, int]]:
        (found,) = call("status", degraded=True)["deployments"]
        return found["phase"], {slot["slot"]: slot["pid"] for slot in found["slots"]}

    victim = slots()[1]["engine-0"]
    os.kill(victim, signal.SIGKILL)
    deadline = time.monotonic() + 120
    while True:
        phase, pids = slots()
        if phase == "ready" and pids["engine-0"] != victim:
            return
        assert time.monotonic() < deadline, (phase, pids)


def begun_or_served(url: str, meanwhile: Callable[[], None]) -> None:
    """Hold 3 requests in flight while something happens; none fails whose answer had not begun."""
    load = Load(CLOSED, 40.0, 0, concurrency=3)
    job = Job(Target(url, served_model(url)), Wording(100, 400), schedule(load, "fixed:32x16"), (0,))
    with ThreadPoolExecutor(1) as threads:
        sending = threads.submit(play, job, time.monotonic())
        complete(url, served_model(url), "a request beside the load", 2)  # it has begun
        meanwhile()
        outcomes = sending.result()
    lost = [why for why, first_s in zip(outcomes.error, outcomes.first_s, strict=True) if why and not first_s]
    assert lost == []
    assert outcomes.good.sum() > 20
    assert (~outcomes.good).sum() <= 3  # what the dead engine had begun to answer


@pytest.mark.vllm
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_profile_fit_plan_deploy_recover_verify_and_destroy(
    hgpu: Run, small_model: Path, tmp_path: Path
) -> None:
    def call(*words: str, degraded: bool = False) -> dict[str, Any]:
        done = hgpu(*words, "--json")
        assert done.returncode in ((0, 4) if degraded else (0,)), done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    spec = tmp_path / "spec.yaml"
    (tmp_path / "book.yaml").write_text(BOOK)
    spec.write_text(SPEC.format(model=small_model, book=tmp_path / "book.yaml"))
    little = ("--repeats", "2", "--budget", "15")
    profile = call("profile", str(spec), "--load-format", "dummy", *little)["profiles"][0]
    assert profile["provenance"] == "measured" and profile["samples"] >= 12
    fitted = call("fit")["fits"][0]
    assert fitted["latency"]["provenance"] == "fitted" and 0 < fitted["latency"]["median_error"] < 0.5
    plan = call("plan", str(spec), "--latency", fitted["digest"][:12])
    assert plan["provenance"] == "fitted"
    assert [row["offer"] for row in plan["allocation"]] == ["x/one:owned", "x/two:owned"]

    deployed = call("deploy", plan["digest"][:12], "--load-format", "dummy")
    try:
        assert deployed["changed"] and deployed["completion"]["tokens"] > 0
        again = call("deploy", plan["digest"][:12], "--load-format", "dummy")
        assert not again["changed"] and again["digest"] == deployed["digest"]
        begun_or_served(deployed["front_url"], lambda: killed_and_back(call))
        bench = measured(hgpu, plan["digest"][:12], deployed["front_url"])
        row = bench["rows"][0]
        assert row["errors"] == 0 and row["requests"] >= 3
        assert row["ttft_s"]["mean"] > 0 and row["predicted_ttft_mean_s"] > 0
        tree = call("show", bench["digest"][:12], "--lineage")
        kinds = []
        while tree["inputs"]:
            tree = tree["inputs"][0]
            kinds.append(tree["kind"])
        assert kinds == ["plan", "latency", "profile"]
    finally:
        gone = call("destroy", deployed["name"])
    assert gone["killed"] >= 4
    assert call("status") == {"deployments": []}
