"""A pool of mode `offload` on the target `local`: a real vLLM server with an expert cache."""

import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
from real.test_deploy_local import LOCAL, OPTIONS, two_engines

from hgpu.artifacts.store import Draft, save
from hgpu.core.experts import ExpertCache, ExpertPolicy
from hgpu.core.gpu import DType
from hgpu.core.operating_point import Mode
from hgpu.runtime.tiny_moe import make_tiny_moe

pytestmark = pytest.mark.vllm
CACHE = ExpertCache(0.25, ExpertPolicy.LRU)


def metrics(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    rows = (line.rpartition(" ") for line in lines if line.startswith("hgpu_expert_"))
    return {name.removeprefix("hgpu_expert_"): float(value) for name, _, value in rows}


def test_a_pool_with_an_expert_cache_serves_and_tells_what_it_copied(tmp_path: Path) -> None:
    model = make_tiny_moe(tmp_path / "tiny-moe", experts=16, per_token=2, layers=2, expert_size=32)
    plan = two_engines(model)
    (row,) = plan.allocation
    point = replace(row.point, mode=Mode.OFFLOAD, dtype=DType.BF16, experts=CACHE)
    one = row.model_copy(update={"count": 1, "engines": 1, "mode": "offload", "point": point})
    saved = save(tmp_path, Draft("plan", "moe", plan.model_copy(update={"allocation": [one]})))
    try:
        deployed = LOCAL.apply(saved, tmp_path, replace(OPTIONS, load_format="auto"), print)
        seen = metrics(deployed.state.slot("engine-0").port)
    finally:
        for name in LOCAL.names(tmp_path):
            LOCAL.destroy(tmp_path, name)
    assert deployed.completion.tokens >= 1
    assert seen["steps_total"] >= deployed.completion.tokens
    assert seen["misses_total"] > 0 and seen["hits_total"] > 0
    assert seen["copied_bytes_total"] == seen["misses_total"] * seen["host_bytes"] / (2 * 16)
    assert (seen["resident_bytes"], seen["wide_bytes"]) == (seen["host_bytes"] / 4, seen["host_bytes"] / 2)
