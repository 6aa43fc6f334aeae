"""Mode `pd` beside `mixed`: priced by simulation, and taken only where it wins."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hgpu.artifacts.memo import Memo
from hgpu.artifacts.payloads.plan import PlanPayload
from hgpu.core.errors import InputError
from hgpu.core.operating_point import EngineOptions, Mode, OperatingPoint
from hgpu.core.provenance import Provenance
from hgpu.core.slo import Objective, Slo
from hgpu.latency.pd import MARGIN, phase_options
from hgpu.runtime.control.pools import controlled_pools
from hgpu.simulator.engine import simulate
from hgpu.simulator.proof import fleet_of
from hgpu.solvers.demand import Demand
from hgpu.solvers.plan import make_plans
from hgpu.solvers.refine import Refiner
from hgpu.specs.serve import EngineSpec, ServeSpec
from hgpu.workloads.replay import poisson_trace
from tests.solvers.services import demand

LIMITS = EngineOptions(max_model_len=8192)
PLAN: dict[str, Any] = {
    "gpus": ["A10G"],
    "offers": {"clouds": ["aws"]},
}


def asked(
    root: Path, tpot_ms: float, modes: tuple[str, ...] = ("mixed", "pd"), rate_rps: float = 6
) -> Demand:
    slo = {"tpot_ms": tpot_ms, "ttft_ms": 2000, "percentile": 90}
    workload = {"lengths": "fixed:512x128", "rate_rps": rate_rps, "requests": 500}
    return demand(root, modes=list(modes), slo=slo, workload=workload, **PLAN)


def refined_plan(
    root: Path, tpot_ms: float, modes: tuple[str, ...] = ("mixed", "pd"), rate_rps: float = 6
) -> PlanPayload:
    refiner = Refiner([asked(root, tpot_ms, modes, rate_rps)], Memo(root / "memo"), lambda *_: None)
    return make_plans(refiner.refine())[0].payload


@pytest.fixture(scope="module")
def tight(tmp_path_factory: pytest.TempPathFactory) -> PlanPayload:
    """The plan where TPOT is tight."""
    return refined_plan(tmp_path_factory.mktemp("results"), 55)


def test_where_tpot_is_tight_fewer_machines_do(tight: PlanPayload, tmp_path: Path) -> None:
    mixed, either = refined_plan(tmp_path, 55, ("mixed",)), tight
    (row,) = either.allocation
    assert row.mode == "pd" and row.phases is not None and row.phases.step is not None
    assert row.phases.options.tpot_s == pytest.approx(MARGIN * 0.055)
    assert either.cost_usd_per_hour < mixed.cost_usd_per_hour
    (prediction,) = either.predicted
    assert prediction.tpot_slo_s <= 0.055 and prediction.ttft_slo_s <= 2.0
    assert prediction.provenance is Provenance.ESTIMATED


def test_where_it_wins_nothing_mixed_is_taken(tmp_path: Path) -> None:
    """A little more that `pd` serves buys nothing where two engines are needed anyway."""
    (row,) = refined_plan(tmp_path, 400, rate_rps=5).allocation
    assert (row.mode, row.phases, row.engines) == ("mixed", None, 2)


def test_a_bound_that_was_not_simulated_serves_nobody(tmp_path: Path) -> None:
    demands = [asked(tmp_path, 55)]
    (served,) = Refiner(demands, Memo(tmp_path / "memo"), lambda *_: None, rounds=0).refine()
    assert {point.mode for point in served.candidates.latency} == {Mode.MIXED}
    assert set(served.candidates.refused.values()) == {"mode 'pd' makes no plan cheaper"}


def test_a_proof_plays_the_planned_scheduler(tight: PlanPayload, tmp_path: Path) -> None:
    (row,) = tight.allocation
    latency = asked(tmp_path, 55).candidates.latency[row.point]
    (pool,) = fleet_of(tight, {row.point: latency}).pools
    trace = poisson_trace("fixed:512x128", 2.0, requests=300)
    runs = [simulate(pool.latency, pool.engine, trace, phases=phases) for phases in (pool.phases, None)]
    held, free = (run.tpot_s.max() for run in runs)
    assert held <= 0.055 < free


def test_the_strictest_objectives_are_kept() -> None:
    point = OperatingPoint("A10G", mode=Mode.PD, engine=LIMITS)
    fast = Slo(Objective(1.0, 99.0), Objective(0.04, 99.0))
    slow = Slo(Objective(4.0, 99.0), Objective(0.1, 99.0))
    options = phase_options(point, [slow, fast])
    assert options is not None
    assert options.tpot_s == pytest.approx(MARGIN * 0.04)
    assert options.ageing_tok_per_s == pytest.approx(8192)
    assert phase_options(replace(point, mode=Mode.MIXED), [fast]) is None


def test_without_a_tpot_objective_there_is_nothing_to_keep() -> None:
    with pytest.raises(ValueError, match="slo has none"):
        ServeSpec.model_validate(
            {"kind": "serve", "model": "m", "workload": {"lengths": "chat", "rate_rps": 1}}
            | {"slo": {"ttft_ms": 100}, "modes": ["pd"]}
            | PLAN
        )


def test_an_autoscaler_refuses_a_pool_that_it_cannot_size(tight: PlanPayload) -> None:
    with pytest.raises(InputError, match="can't be scaled by load"):
        controlled_pools(tight, {}, {})


def test_of_several_token_budgets_the_plan_takes_what_costs_least(tmp_path: Path) -> None:
    slo = {"tpot_ms": 55, "ttft_ms": 2000, "percentile": 90}
    workload = {"lengths": "fixed:512x128", "rate_rps": 6, "requests": 500}
    costs = {}
    for budgets in (128, 2048, [128, 2048]):
        engine = {"max_num_batched_tokens": budgets, "max_num_seqs": 64}
        found = demand(tmp_path, slo=slo, workload=workload, engine=engine, **PLAN)
        assert len({id(model) for model in found.candidates.latency.values()}) == 1  # timed once
        refiner = Refiner([found], Memo(tmp_path / "memo"), lambda *_: None)
        plan = make_plans(refiner.refine())[0].payload
        costs[str(budgets)] = plan.cost_usd_per_hour
    (row,) = plan.allocation
    assert row.point.engine.max_num_batched_tokens == 128
    assert costs["[128, 2048]"] == costs["128"] < costs["2048"]


def test_a_budget_that_vllm_refuses_is_refused_in_the_spec() -> None:
    with pytest.raises(ValueError, match="below max_num_seqs 256"):
        EngineSpec.model_validate({"max_num_batched_tokens": [128, 2048]})
