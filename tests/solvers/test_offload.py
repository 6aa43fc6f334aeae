"""Mixtures of experts planned with experts in host memory: where that wins, and where it must not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hgpu.artifacts.payloads.plan import PlanPayload
from hgpu.catalog.offers import load_offers
from hgpu.core.errors import Infeasible, InputError
from hgpu.core.operating_point import Mode
from hgpu.latency.offload_points import with_caches
from hgpu.latency.select import select_latency
from hgpu.simulator.fleet import replay
from hgpu.simulator.proof import attainments, fleet_of, promise_of
from hgpu.solvers.demand import Candidates, Demand
from hgpu.solvers.explain import explain
from hgpu.solvers.host_memory import holds_experts, too_small
from hgpu.solvers.plan import make_plans
from hgpu.specs.serve import ServeSpec
from hgpu.specs.service import Service, service_of
from hgpu.workloads.replay import poisson_trace

QWEN: dict[str, Any] = {
    "kind": "serve",
    "model": "Qwen/Qwen3-30B-A3B",
    "workload": {"lengths": "chat", "rate_rps": 0.015, "requests": 1000},
    "slo": {"tpot_ms": 400, "ttft_ms": 15000, "percentile": 90},
    "gpus": ["L4", "A100-80GB"],
    "tensor_parallel": [1, 4],
    "modes": ["mixed", "offload"],
    "offload": {"cache": [0.25], "max_num_seqs": [4]},
    "engine": {"max_model_len": 4096},
    "offers": {"clouds": ["aws", "gcp", "azure"]},
}
MIXTRAL = QWEN | {
    "model": "mistralai/Mixtral-8x7B-v0.1",
    "workload": {"lengths": "chat", "rate_rps": 0.004, "requests": 1000},
    "slo": {"tpot_ms": 3000, "ttft_ms": 30000, "percentile": 90},
    "gpus": ["L40S", "H200"],
    "offers": {"clouds": ["aws", "gcp", "azure"]},
}


KEPT: list[Path] = []  # where estimates are kept, each made once


@pytest.fixture(autouse=True, scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    KEPT[:] = [tmp_path_factory.mktemp("estimates")]


def demand(spec: dict[str, Any], said: list[str] | None = None, **changes: Any) -> Demand:
    service = service_of(ServeSpec.model_validate(spec | changes))
    cached = with_caches(service, None, (said if said is not None else []).append)
    service = cached.service
    selection = select_latency(
        KEPT[0], service.model, service.points, (), only_estimates=True, routing=cached.routing
    )
    models = {point: artifact.payload.latency for point, artifact in selection.chosen.items()}
    return Demand(service, Candidates(models, selection.refused, 0.9))


def planned(spec: dict[str, Any], **changes: Any) -> PlanPayload:
    return make_plans([demand(spec, **changes)])[0].payload


@pytest.mark.parametrize(("spec", "gpu"), [(QWEN, "L4"), (MIXTRAL, "L40S")])
def test_at_a_low_rate_a_cheaper_gpu_with_experts_in_host_memory_wins(spec: dict[str, Any], gpu: str) -> None:
    plan = planned(spec)
    (row,) = plan.allocation
    assert (row.mode, row.gpu, row.engines) == ("offload", gpu, 1)
    assert row.point.experts is not None and row.point.experts.fraction == 0.25
    resident = planned(spec, modes=["mixed"])
    costs = [one.cost_usd_per_hour for one in plan.baselines if one.cost_usd_per_hour is not None]
    assert min(costs) == pytest.approx(resident.cost_usd_per_hour)
    assert plan.cost_usd_per_hour < 0.5 * resident.cost_usd_per_hour
    assert plan.provenance == "estimated"


def test_the_runner_up_has_all_weights_on_its_gpus() -> None:
    said = {row.without: row for row in explain(demand(QWEN)).alternatives}
    assert said["mode offload"].fleet == "1× A100-80GB"
    assert said["mode offload"].cost_usd_per_hour == pytest.approx(3.673)


def test_a_simulation_of_the_planned_fleet_keeps_the_objectives() -> None:
    asked = demand(QWEN)
    plan = make_plans([asked])[0].payload
    trace = poisson_trace(asked.service.workload, 0.015, requests=1500)
    run = replay(fleet_of(plan, asked.candidates.latency), trace, seed=0)
    assert all(made.met for made in attainments(promise_of(plan), run))


def test_a_tight_tpot_refuses_it_and_names_the_link() -> None:
    plan = planned(QWEN, slo={"tpot_ms": 100, "ttft_ms": 15000, "percentile": 90})
    assert {row.mode for row in plan.allocation} == {"mixed"}
    said = {row.point: row.reason for row in plan.forbidden}
    assert "the host link takes" in said["L4 offload 25% pinned_lfu"]
    assert "ms a token" in said["L4 offload 25% pinned_lfu"]
    with pytest.raises(Infeasible, match="no GPU type serves") as refused:
        planned(QWEN, slo={"tpot_ms": 100}, modes=["offload"], gpus=["L4"])
    assert "the host link takes" in refused.value.why and "tpot_ms to" in refused.value.fix


def test_a_slow_first_token_is_the_links_too() -> None:
    plan = planned(QWEN, slo={"tpot_ms": 400, "ttft_ms": 1000, "percentile": 90})
    said = {row.point: row.reason for row in plan.forbidden}
    assert "ms of its prompt" in said["L4 offload 25% pinned_lfu"]


def test_a_high_rate_refuses_it_as_the_batch_needs_all_experts() -> None:
    plan = planned(QWEN, workload=QWEN["workload"] | {"rate_rps": 2})
    assert {row.mode for row in plan.allocation} == {"mixed"}
    alone = planned(QWEN, workload=QWEN["workload"] | {"rate_rps": 2}, modes=["offload"])
    assert alone.cost_usd_per_hour > 10 * plan.cost_usd_per_hour


def test_a_machine_without_room_for_the_experts_is_no_offer_of_that_mode() -> None:
    service = service_of(ServeSpec.model_validate(QWEN))
    (point,) = [p for p in service.points if p.mode is Mode.OFFLOAD and p.gpu == "L4"]
    by_name = {offer.name: offer for offer in load_offers()}
    small, large, unknown = (
        by_name["gcp/g2-standard-4"],
        by_name["gcp/g2-standard-16"],
        replace(by_name["gcp/g2-standard-4"], host_memory_gib=None),
    )
    assert [holds_experts(offer, point, service.model) for offer in (small, large, unknown)] == [
        False,
        True,
        True,
    ]
    four = replace(large, gpu_count=4, host_memory_gib=192)
    assert not holds_experts(four, point, service.model)  # 54 GiB for each of four engines
    assert holds_experts(small, replace(point, mode=Mode.MIXED, experts=None), service.model)
    assert "gcp/g2-standard-4 has 16 GiB" in too_small([small], point, service.model)
    assert not too_small([small, large], point, service.model)


def only(service: Service, offer: str) -> Service:
    return replace(service, offers=tuple(one for one in service.offers if one.name == offer))


def test_where_no_machine_has_room_the_plan_says_so() -> None:
    asked = demand(QWEN, modes=["offload"], gpus=["L4"])
    with pytest.raises(Infeasible, match="nothing offers") as refused:
        make_plans([replace(asked, service=only(asked.service, "aws/g6.xlarge"))])
    assert "54.0 GiB of experts" in refused.value.why and "has 16 GiB" in refused.value.why


def test_what_is_assumed_of_the_routing_is_said_and_other_degrees_are_refused() -> None:
    said: list[str] = []
    demand(QWEN, said)
    assert len(said) == 1 and "no routing of Qwen/Qwen3-30B-A3B is given" in said[0]
    with pytest.raises(InputError, match="tensor_parallel doesn't have 1"):
        demand(QWEN, tensor_parallel=[4])
    with pytest.raises(InputError, match="can't hold the 8 experts"):
        demand(QWEN, offload={"cache": [0.05]})
