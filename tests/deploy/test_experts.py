"""Engines of mode `offload` get their cache, and what the plan's routing trace says is hot."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from deploy_standin import payload, row

from hgpu.artifacts.manifest import InputRef
from hgpu.artifacts.store import Draft, load, save
from hgpu.core.errors import InputError
from hgpu.core.experts import ExpertCache, ExpertPolicy, Prefetch
from hgpu.core.operating_point import Mode
from hgpu.deploy.experts import hints_path, with_experts, write_hints
from hgpu.deploy.launch import Launch
from hgpu.deploy.modes import is_pair, require_mixed
from hgpu.deploy.record import deployment_payload
from hgpu.latency.expert_hints import hints_of
from hgpu.latency.hints_file import load_hints
from hgpu.latency.routing_artifact import trace_of
from hgpu.runtime.vllm.expert_options import expert_options_of

GOLDEN = Path(__file__).parents[1] / "artifacts" / "golden"


def offloading(cache=ExpertCache(0.25)):  # noqa: B008  # frozen
    planned = row()
    point = replace(planned.point, mode=Mode.OFFLOAD, experts=cache)
    return planned.model_copy(update={"mode": "offload", "point": point})


def saved(root, planned, routing=None):
    """Save a plan whose latency model was made by a routing trace, as `hgpu plan` does."""
    behind = [routing.as_input("routing")] if routing else []
    golden = load(GOLDEN / "latency.v3")
    files = {"measured.parquet": b""} if golden.manifest.files else {}
    latency = save(root, Draft("latency", "moe", golden.payload, inputs=behind, files=files))
    inputs = [InputRef(role="latency chat", kind="latency", digest=latency.digest)]
    return save(root, Draft("plan", "moe", payload(planned), inputs=inputs))


def recording(root):
    golden = load(GOLDEN / "routing.v1")
    files = {file.path: (golden.path / file.path).read_bytes() for file in golden.manifest.files}
    return save(root, Draft("routing", "moe", golden.payload, options=golden.manifest.options, files=files))


@pytest.fixture
def recorded(tmp_path):
    return recording(tmp_path)


@pytest.fixture
def recorded_here(bench):
    return recording(bench.root)


def test_an_engine_is_told_its_cache_and_the_hints_of_the_plans_routing(tmp_path, recorded):
    planned = offloading()
    write_hints(saved(tmp_path, planned, recorded), tmp_path, tmp_path)
    launch = with_experts(Launch(["vllm", "serve"], {"A": "b"}), planned, tmp_path)
    assert launch.command[:3] == ["vllm", "serve", "--enforce-eager"] and launch.environment == {"A": "b"}
    options = expert_options_of(json.loads(launch.command[-1]))
    assert options.hints == hints_path(tmp_path)
    expected = hints_of(trace_of(recorded))
    assert (load_hints(options.hints).ranking == expected.ranking).all()


def test_the_record_of_a_deployment_says_its_cache_and_no_place_of_this_machine(bench, recorded_here):
    plan = saved(bench.root, offloading(), recorded_here)
    deployed = bench.apply(plan=plan)
    folder = bench.root / "state" / deployed.state.name
    started = expert_options_of(json.loads(deployed.state.slot("engine-0").command[-1]))
    assert started.hints == hints_path(folder) and started.hints.exists()
    (slot, *_) = deployment_payload(plan.payload, deployed, "auto", bench.driver.commands).slots
    options = expert_options_of(json.loads(slot.command[-1]))
    assert options.fraction == 0.25
    assert options.hints == Path("results/state") / deployed.state.name / "hints.npz"


def test_a_cache_that_needs_no_hints_gets_none(tmp_path):
    planned = offloading(ExpertCache(0.25, ExpertPolicy.LRU, Prefetch.NEXT_GATE))
    write_hints(saved(tmp_path, planned), tmp_path, tmp_path)
    assert not hints_path(tmp_path).exists()
    launch = with_experts(Launch([], {}), planned, tmp_path)
    assert expert_options_of(json.loads(launch.command[-1])).hints is None


def test_other_engines_are_started_as_ever(tmp_path):
    launch = Launch(["vllm"], {})
    assert with_experts(launch, row(), tmp_path) is launch


def test_a_plan_without_routing_cant_say_what_to_pin(tmp_path):
    with pytest.raises(InputError, match=r"pins or prefetches experts.*hgpu profile --mode offload"):
        write_hints(saved(tmp_path, offloading()), tmp_path, tmp_path)


def test_offloading_engines_start_here_and_nowhere_else():
    assert not is_pair(offloading())
    with pytest.raises(InputError, match="or deploy to `local`"):
        require_mixed(offloading())
