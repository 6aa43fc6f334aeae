"""Jobs that share machines: the choice is the best there is, and what stands in the way is named."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hgpu.core.allocation import Rental
from hgpu.core.errors import Infeasible, InputError, UnknownName
from hgpu.core.offer import Market, Offer
from hgpu.latency.training_select import ActivationChoice
from hgpu.solvers.job_plan import plan_jobs
from hgpu.solvers.jobs import Bound, Jobs, Option, choose
from hgpu.specs.finetune import FinetuneSpec
from hgpu.specs.finetune_job import Finetune, finetune_of

ESTIMATED = ActivationChoice(())


def offer(name: str) -> Offer:
    return Offer("aws", name, "us-east-1", Market.ON_DEMAND, "L4", 1, 1.0, "2026-11-01", "test")


OPTIONS = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(1, 50), st.integers(1, 50), st.integers(1, 3)),
    min_size=2,
    max_size=8,
).filter(lambda rows: {row[0] for row in rows} == {"a", "b"})


def jobs_of(rows: list[tuple[str, int, int, int]], deadline: int, cap: int) -> Jobs:
    options = tuple(
        Option(job, f"{job}{n}", float(cost), float(hours), offer("x"), machines)
        for n, (job, cost, hours, machines) in enumerate(rows)
    )
    mine = {n: option.hours for n, option in enumerate(options) if option.job == "a"}
    machines = {n: float(option.machines) for n, option in enumerate(options)}
    return Jobs(options, (Bound("deadline_h", deadline, mine, " h"), Bound("machines", cap, machines)))


def brute_force(jobs: Jobs) -> float | None:
    """The least cost of one option a job that keeps all bounds."""
    by_job = [[n for n, o in enumerate(jobs.options) if o.job == name] for name in jobs.names]
    kept = [
        sum(jobs.options[n].cost_usd for n in picked)
        for picked in product(*by_job)
        if all(sum(b.weights.get(n, 0.0) for n in picked) <= b.at_most + 1e-9 for b in jobs.bounds)
    ]
    return min(kept, default=None)


@given(OPTIONS, st.integers(1, 50), st.integers(2, 6))
def test_the_choice_is_what_brute_force_finds(
    rows: list[tuple[str, int, int, int]], deadline: int, cap: int
) -> None:
    jobs = jobs_of(rows, deadline, cap)
    best = brute_force(jobs)
    if best is None:
        with pytest.raises(Infeasible, match="keeps all bounds"):
            choose(jobs)
        return
    found = choose(jobs)
    assert found.cost_usd == pytest.approx(best)
    assert sorted(jobs.options[n].job for n in found.options) == ["a", "b"]


def test_a_bound_in_the_way_is_named_with_the_value_and_price_that_would_do() -> None:
    jobs = jobs_of([("a", 10, 30, 1), ("a", 20, 9, 1), ("b", 1, 1, 1)], deadline=5, cap=9)
    with pytest.raises(Infeasible) as caught:
        choose(jobs)
    assert "deadline_h alone stands in the way" in caught.value.why
    assert "raise deadline_h to 9 h (21.00 USD" in caught.value.fix


def test_where_several_bounds_forbid_it_all_are_named_with_what_the_cheapest_needs() -> None:
    jobs = jobs_of([("a", 10, 30, 3), ("b", 1, 1, 1)], deadline=5, cap=2)
    with pytest.raises(Infeasible, match="several of them") as caught:
        choose(jobs)
    assert "deadline_h: 5 h" in caught.value.why and "machines: 2" in caught.value.why
    assert "raise deadline_h to 30 h and machines to 4 (11.00 USD" in caught.value.fix


@given(st.floats(1e-6, 1e9), st.floats(1e-3, 1.0))
def test_the_value_that_would_do_does_when_it_is_written_down(hours: float, part: float) -> None:
    def asked(deadline_h: float) -> Jobs:
        option = Option("a", "a", 1.0, hours, offer("x"), 1)
        return Jobs((option,), (Bound("deadline_h", deadline_h, {0: hours}, " h"),))

    with pytest.raises(Infeasible) as caught:
        choose(asked(hours * part * 0.99))
    needed = float(caught.value.fix.split("raise deadline_h to ")[1].split(" h")[0])
    assert hours <= needed <= hours * 1.001
    assert choose(asked(needed)).options == (0,)


@given(st.floats(1e-9, 1e-3), st.floats(1e-6, 0.5))
def test_a_job_of_less_than_a_cent_is_chosen_as_exactly_as_a_large_one(cost: float, more: float) -> None:
    dear = Option("a", "dear", cost * (1 + more), 1.0, offer("x"), 1)
    cheap = Option("a", "cheap", cost, 1.0, offer("y"), 1)
    assert choose(Jobs((dear, cheap), ())).options == (1,)


@given(st.floats(1e-9, 1e-3), st.floats(1e-6, 0.5))
def test_a_deadline_of_a_moment_is_kept_as_exactly_as_a_long_one(hours: float, more: float) -> None:
    late = Option("a", "late", 1.0, hours * (1 + more), offer("x"), 1)
    early = Option("a", "early", 2.0, hours, offer("x"), 1)
    deadline = Bound("deadline_h", hours, {0: late.hours, 1: early.hours})
    assert choose(Jobs((late, early), (deadline,))).options == (1,)


def test_what_runs_beside_forbids_no_way_that_takes_nothing_of_the_limit() -> None:
    a, b = Option("a", "l4", 1.0, 1.0, offer("x"), 1), Option("a", "other", 2.0, 1.0, offer("y"), 1)
    jobs = Jobs((a, b), (Bound("limits L4", 1, {0: 1.0}, used=3),))
    assert choose(jobs).options == (1,)
    with pytest.raises(Infeasible) as caught:
        choose(Jobs((a,), jobs.bounds))
    assert "limits L4: 1, 3 of it used beside" in caught.value.why
    assert "raise limits L4 to 4 (" in caught.value.fix


def finetune(**changes: Any) -> Finetune:
    fields: dict[str, Any] = {
        "kind": "finetune",
        "model": "Llama-3.2-1B",
        "method": "lora",
        "context": 1024,
        "batch": 8,
        "tokens": 10_000_000,
        "gpus": ["L4", "B200"],
        "offers": {"clouds": ["aws"]},
    }
    return finetune_of(FinetuneSpec.model_validate(fields | changes))


def test_the_cheapest_way_is_chosen_until_the_deadline_asks_for_a_faster_one() -> None:
    (slow,) = plan_jobs({"job": finetune()}, {"job": ESTIMATED})
    assert slow.payload.choice.gpu == "L4"
    hours = slow.payload.choice.hours
    (fast,) = plan_jobs({"job": finetune(deadline_h=hours / 2)}, {"job": ESTIMATED})
    assert fast.payload.choice.gpu == "B200" and fast.payload.choice.hours <= hours / 2
    assert fast.payload.choice.cost_usd > slow.payload.choice.cost_usd
    (deadline,) = (row for row in fast.payload.binding if row.bound.startswith("deadline_h"))
    saved = fast.payload.choice.cost_usd - slow.payload.choice.cost_usd
    assert deadline.binds and deadline.saves_usd == pytest.approx(saved) and "L4" in deadline.without


def test_memory_binds_where_a_cheaper_gpu_is_too_small() -> None:
    asked = finetune(model="Llama-3.1-8B", method="full", data_parallel=[1, 8], gpus=["L4", "H100-SXM"])
    (planned,) = plan_jobs({"job": asked}, {"job": ESTIMATED})
    payload = planned.payload
    assert payload.choice.variant.sharding == "zero3" and payload.choice.gpu == "H100-SXM"
    for row in payload.memory:
        assert sum(row.device.values()) <= payload.device_capacity_bytes
    assert any("too little memory on L4" in row.reason for row in payload.refused)
    (memory,) = (row for row in payload.binding if row.bound == "GPU memory")
    assert memory.binds and memory.saves_usd and memory.saves_usd > 0


def test_what_fits_nowhere_says_what_is_missing_and_what_would_fit() -> None:
    asked = finetune(model="Llama-3.1-8B", method="full", gpus=["L4"], checkpointing=[True, False])
    with pytest.raises(Infeasible, match="fits in memory") as caught:
        plan_jobs({"job": asked}, {"job": ESTIMATED})
    assert "GiB at the moment" in caught.value.why and "optimizer" in caught.value.why
    assert "allow method: lora" in caught.value.fix


def test_where_no_single_change_is_enough_pairs_of_them_are_proposed() -> None:
    asked = finetune(model="Llama-3.1-70B", gpus=["H100-SXM"], context=8192)
    with pytest.raises(Infeasible, match="fits in memory") as caught:
        plan_jobs({"job": asked}, {"job": ESTIMATED})
    assert "allow checkpointing: true and data_parallel" in caught.value.fix


def test_offloading_without_a_known_host_is_refused_by_reason() -> None:
    asked = finetune(offload=["none", "zero3"])
    (planned,) = plan_jobs({"job": asked}, {"job": ESTIMATED})
    assert any("host.bandwidth_gb_s" in row.reason for row in planned.payload.refused)


def test_tiers_are_placed_by_level_and_hold_all_that_is_offloaded() -> None:
    host = {"bandwidth_gb_s": 100, "cxl_cards": 2, "cxl_memory_gib": 256, "cxl_bandwidth_gb_s": 30}
    asked = finetune(
        model="Qwen2.5-7B", method="full", offload="tiered", checkpointing=True, host=host, gpus=["H100-SXM"]
    )
    (planned,) = plan_jobs({"job": asked}, {"job": ESTIMATED})
    payload = planned.payload
    placed = {row.tensor: row.bytes_by_tier for row in payload.placement}
    assert set(placed["momentum"]) == {"DRAM", "CXL 1", "CXL 2"}
    assert placed["momentum"]["CXL 1"] == 0 < placed["momentum"]["DRAM"]
    total = sum(sum(tiers.values()) for tiers in placed.values())
    assert total == pytest.approx(payload.choice.host_bytes)
    assert "optimizer on DRAM" in payload.choice.seconds_by_bound
    gap = payload.placement_gap
    assert gap is not None and gap.proven and gap.exact_step_s <= gap.rule_step_s < 1.1 * gap.exact_step_s


def test_two_jobs_share_a_limit_and_machines_beside_them_count() -> None:
    asked = {
        "one": finetune(limits={"L4": 1}, deadline_h=50),
        "two": finetune(limits={"L4": 1}, deadline_h=50, tokens=5_000_000),
    }
    planned = plan_jobs(asked, dict.fromkeys(asked, ESTIMATED))
    assert sorted(job.payload.choice.gpu for job in planned) == ["B200", "L4"]
    assert planned[0].payload.together_with == ["two"]
    l4 = next(o for o in asked["one"].offers if o.gpu == "L4" and o.gpu_count == 1)
    beside = plan_jobs(asked, dict.fromkeys(asked, ESTIMATED), [Rental(l4, 1)])
    assert {job.payload.choice.gpu for job in beside} == {"B200"}


def test_what_runs_beside_counts_against_the_supply_of_an_offer_and_runners_up_keep_limits() -> None:
    free = plan_jobs({"one": finetune()}, {"one": ESTIMATED})[0].payload
    assert "B200" in {row.gpu for row in free.alternatives}
    asked = finetune(method=["lora", "lamda"], limits={"B200": 0})
    kept = plan_jobs({"one": asked}, {"one": ESTIMATED})[0].payload
    assert {row.gpu for row in kept.alternatives} == {"L4"}
    offers = tuple(replace(o, available=1) for o in asked.offers if (o.gpu, o.gpu_count) == ("L4", 1))
    scarce = replace(asked, offers=offers)
    names = {offer.name for offer in offers}
    beside = [Rental(offer, 1) for offer in offers]
    assert plan_jobs({"one": scarce}, {"one": ESTIMATED})[0].payload.choice.offer in names
    with pytest.raises(Infeasible, match="available: 1, 1 of it used beside"):
        plan_jobs({"one": scarce}, {"one": ESTIMATED}, beside)


def test_jobs_that_disagree_about_a_limit_and_unknown_limits_are_refused() -> None:
    asked = {"one": finetune(limits={"L4": 1}), "two": finetune(limits={"L4": 2})}
    with pytest.raises(InputError, match="disagree about the limit 'L4'"):
        plan_jobs(asked, dict.fromkeys(asked, ESTIMATED))
    with pytest.raises(UnknownName, match="limit 'L5'"):
        plan_jobs({"one": finetune(limits={"L5": 1})}, {"one": ESTIMATED})


def test_copies_over_machines_need_a_network_that_is_known() -> None:
    wide = {"gpus": ["H100-SXM"], "data_parallel": 16, "batch": 32}
    with pytest.raises(Infeasible, match=r"host\.network_gb_s"):
        plan_jobs({"job": finetune(**wide)}, {"job": ESTIMATED})
    (planned,) = plan_jobs({"job": finetune(**wide, host={"network_gb_s": 50})}, {"job": ESTIMATED})
    assert (planned.payload.choice.machines, planned.payload.choice.gpus_per_machine) == (2, 8)
    assert planned.payload.choice.usd_per_hour == pytest.approx(2 * 55.04)


@settings(max_examples=10)
@given(st.floats(0.01, 4))
def test_a_later_deadline_never_costs_more(hours: float) -> None:
    costs = []
    for deadline in (hours, 2 * hours):
        try:
            (planned,) = plan_jobs({"job": finetune(deadline_h=deadline)}, {"job": ESTIMATED})
            costs.append(planned.payload.choice.cost_usd)
        except Infeasible:
            costs.append(float("inf"))
    assert costs[1] <= costs[0] + 1e-9
