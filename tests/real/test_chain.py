"""The whole chain through the command line, on one core with real vLLM."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests_types import Run

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
offers: {{clouds: [aws]}}
"""


def measured(hgpu: Run, plan: str, url: str) -> dict[str, Any]:
    """A valid measurement: one that a busy moment of this machine made the harness late in is taken again."""
    for _ in range(4):
        done = hgpu("bench", "verify", plan, url, "--duration", "10", "--json")
        if done.returncode == 0:
            document: dict[str, Any] = json.loads(done.stdout)
            return document
        assert done.returncode == 4 and "late at p99" in done.stderr, done.stderr
    raise AssertionError(f"the harness was late four times: {done.stderr}")


@pytest.mark.vllm
def test_profile_fit_plan_deploy_verify_and_destroy(hgpu: Run, small_model: Path, tmp_path: Path) -> None:
    def call(*words: str) -> dict[str, object]:
        done = hgpu(*words, "--json")
        assert done.returncode == 0, done.stderr
        document: dict[str, object] = json.loads(done.stdout)
        return document

    spec = tmp_path / "spec.yaml"
    spec.write_text(SPEC.format(model=small_model))
    little = ("--repeats", "2", "--budget", "15")
    profile = call("profile", str(spec), "--load-format", "dummy", *little)["profiles"][0]
    assert profile["provenance"] == "measured" and profile["samples"] >= 12
    fitted = call("fit")["fits"][0]
    assert fitted["latency"]["provenance"] == "fitted" and 0 < fitted["latency"]["median_error"] < 0.5
    plan = call("plan", str(spec), "--latency", fitted["digest"][:12])
    assert plan["provenance"] == "fitted" and plan["allocation"][0]["offer"] == "aws/c7a.medium"

    deployed = call("deploy", plan["digest"][:12], "--load-format", "dummy")
    try:
        assert deployed["changed"] and deployed["completion"]["tokens"] > 0
        again = call("deploy", plan["digest"][:12], "--load-format", "dummy")
        assert not again["changed"] and again["digest"] == deployed["digest"]
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
    assert gone["killed"] >= 2
    assert call("status") == {"deployments": []}
