from pathlib import Path
from typing import Any

import pytest
import yaml

from hgpu.artifacts.payloads.placement import PlacementPayload
from hgpu.core.errors import Infeasible, InputError
from hgpu.core.provenance import Provenance
from hgpu.solvers.rl_plan import plan_loop
from hgpu.specs.rl import RlSpec
from hgpu.specs.templates import template

SPEC = yaml.safe_load(template("rl"))


def planned(**changes: Any) -> PlacementPayload:
    return plan_loop(RlSpec.model_validate({**SPEC, **changes})).payload


def test_the_template_is_collocated_and_says_what_each_other_mode_would_take() -> None:
    payload = planned()
    assert payload.mode == "collocated"
    assert payload.iteration_s == pytest.approx(100 + 4.58)
    assert {(row.mode, row.stages) for row in payload.alternatives} == {
        ("collocated", 1),
        *(("hybrid", k) for k in (1, 2, 4)),
        *(("disaggregated", k) for k in (1, 2, 4)),
    }
    assert payload.alternatives[0].iteration_s == payload.iteration_s
    times = [row.usd_per_iteration for row in payload.alternatives if row.usd_per_iteration is not None]
    assert times == sorted(times)
    assert payload.provenance is Provenance.FITTED  # the GPUs were measured, never this loop
    assert "actor works longest" in payload.binding[0].what


def test_seconds_of_all_steps_and_of_one_are_the_same_loop() -> None:
    a_step = [
        {**row, "seconds": {"H100-SXM": {n: s / 80 for n, s in row["seconds"]["H100-SXM"].items()}}}
        if row["name"] != "actor"
        else row
        for row in SPEC["components"]
    ]
    one, other = planned(), planned(components=a_step, profiled="step")
    assert one.iteration_s == pytest.approx(other.iteration_s)


def test_a_deadline_that_no_placement_keeps_names_the_one_that_suffices() -> None:
    with pytest.raises(Infeasible, match="deadline of 20 h") as refused:
        planned(deadline_h=20)
    hours = float(refused.value.fix.split()[1])
    assert planned(deadline_h=hours).iteration_s * 1000 <= hours * 3600


def test_a_budget_that_no_placement_keeps_names_the_one_that_suffices() -> None:
    with pytest.raises(Infeasible, match="budget of 5 USD") as refused:
        planned(budget_usd=5)
    usd = float(refused.value.fix.split()[1])
    assert planned(budget_usd=usd).usd_per_iteration * 1000 <= usd


def test_a_deadline_that_costs_money_binds_and_says_how_much() -> None:
    profile = {1: 400.0, 2: 210.0, 4: 110.0}
    spec = {
        "workflow": "pipeline",
        "batches": 8,
        "envs": None,
        "steps": None,
        "components": [{"name": name, "seconds": {"H100-SXM": profile}} for name in ("rollout", "actor")],
        "pools": [{"gpu": "H100-SXM", "gpus": 8, "gpus_per_node": 1, "usd_per_gpu_hour": 3}],
        "deadline_h": 70,
    }
    spec = {key: value for key, value in {**SPEC, **spec}.items() if value is not None}
    payload = plan_loop(RlSpec.model_validate(spec)).payload
    assert payload.iteration_s <= 252
    (bound,) = [row for row in payload.binding if row.what == "the deadline binds"]
    assert bound.usd_per_iteration is not None and bound.usd_per_iteration < payload.usd_per_iteration
    free = plan_loop(RlSpec.model_validate({**spec, "deadline_h": None})).payload
    assert bound.usd_per_iteration == pytest.approx(free.usd_per_iteration)
    reasons = {row.mode: row.reason for row in payload.alternatives if row.reason}
    assert reasons == {"hybrid": "RLinf's pipelines share all GPUs or none"}


def test_one_node_more_is_worth_what_planning_with_it_gives() -> None:
    small = {"gpu": "H100-SXM", "gpus": 2, "gpus_per_node": 2, "usd_per_gpu_hour": 3}
    payload = planned(pools=[small], objective="time")
    (bound,) = [row for row in payload.binding if "one node more" in row.what]
    assert bound.iteration_s == pytest.approx(
        planned(pools=[{**small, "gpus": 4}], objective="time").iteration_s
    )


def test_what_was_never_measured_is_said() -> None:
    more = [
        {"gpu": "H100-SXM", "gpus": 8, "usd_per_gpu_hour": 3},
        {"gpu": "L4", "gpus": 4, "usd_per_gpu_hour": 1},
    ]
    missing = planned(pools=more).missing
    assert "actor on H100-SXM: more than 4 GPUs" in missing
    assert "env on L4: no profile" in missing
    assert any(text.startswith("env on H100-SXM: 2") for text in missing)


def test_prices_of_pools_without_one_are_the_cheapest_offers() -> None:
    pool = planned(pools=[{"gpu": "H100-SXM", "gpus": 4}]).pools[0]
    assert pool.usd_per_gpu_hour > 0 and pool.gpus_per_node >= 1 and "20" in pool.source


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"pools": [{"gpu": "L4", "gpus": 4, "usd_per_gpu_hour": 1}]},
            "no profile on a GPU type of the pools",
        ),
        ({"pools": [{"gpu": "H100-SXM", "gpus": 4, "gpus_per_node": 3}]}, "nodes of 3 GPUs"),
        ({"components": [{**row, "seconds": {}} for row in SPEC["components"]]}, "has no profile"),
        (
            {"components": [{**row, "law": "rlinf_training"} for row in SPEC["components"]]},
            "can't be scaled by rlinf_training",
        ),
    ],
)
def test_what_cant_be_placed_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        planned(**changes)


def test_too_few_gpus_for_any_measured_count_are_infeasible() -> None:
    with pytest.raises(Infeasible, match="no placement of all components"):
        planned(modes=["disaggregated"], pools=[{"gpu": "H100-SXM", "gpus": 2, "usd_per_gpu_hour": 1}])


def test_profiles_of_a_file_stand_in_for_seconds(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows = [
        f"{row['name']},H100-SXM,{n},{s}"
        for row in SPEC["components"]
        for n, s in row["seconds"]["H100-SXM"].items()
    ]
    path.write_text("\n".join(["component,gpu,count,seconds", *rows]))
    bare = [{key: value for key, value in row.items() if key != "seconds"} for row in SPEC["components"]]
    made = plan_loop(RlSpec.model_validate({**SPEC, "components": bare, "profile": str(path)}))
    assert made.payload.iteration_s == planned().iteration_s
    assert [file.role for file in made.read.files] == ["profile"]
    with pytest.raises(InputError, match="has two profiles"):
        planned(profile=str(path))
    path.write_text(path.read_text() + "\nenv,H100-SXM,4,9\n")
    with pytest.raises(InputError, match="two rows of env"):
        planned(components=bare, profile=str(path))
