"""Offers that can't be had are closed for a while, and planned around with a real solve."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from ec2_cases import apply, driver, leftovers, living, plan_of, pool
from ec2_faults import Faults

from hgpu.artifacts.resolve import entries
from hgpu.artifacts.store import load
from hgpu.commands.planning import Asked, spec_plans
from hgpu.commands.replanning import replan_around
from hgpu.core.errors import Infeasible
from hgpu.deploy.ec2.capacity import BARRED, FULL, OfferClosed
from hgpu.deploy.ec2.state import read_state
from hgpu.deploy.state import Phase
from hgpu.deploy.state_file import state_folder

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
NAME = "chat"
SPEC = """\
kind: serve
model: meta-llama/Llama-3.1-8B-Instruct
workload: {lengths: chat, rate_rps: 8}
slo: {tpot_ms: 120, ttft_ms: 2000, percentile: 99}
gpus: [L4, L40S, A10G]
engine: {max_model_len: 8192}
offers: {clouds: [aws], regions: [us-east-1]}
"""


def solve(folder, text):
    path = folder / "spec.yaml"
    path.write_text(text)
    (cell,) = spec_plans(Asked([path], folder, estimate=True))
    return cell.plan


def of_pool(row):
    machine = row.offer.removeprefix("aws/").replace(".", "-")
    return {"LaunchTemplate.LaunchTemplateName": f"{NAME}-{machine}-"}


@pytest.fixture
def solved(tmp_path):
    """A plan of a spec, whose machines are those of one or more real offers."""
    return solve(tmp_path, SPEC)


@pytest.fixture
def faulty(moto):
    client = moto.client()
    return driver(moto, clients=lambda: lambda _: client, now=lambda: NOW), Faults(client)


def replan(root):
    return lambda plan, closed: replan_around(root, plan, {(c.offer, c.region): held for c, held in closed})


def types(client):
    return {machine["InstanceType"] for machine in living(client)}


@pytest.mark.parametrize("code", [*FULL, *BARRED])
def test_every_error_of_supply_closes_the_offer_until_a_time(faulty, ec2, tmp_path, code):
    aws, faults = faulty
    faults.add("RunInstances", code, message="none left")
    with pytest.raises(OfferClosed) as closed:
        apply(aws, plan_of(tmp_path, pool("l4", 1)), tmp_path)
    assert closed.value.exit_code == 3 and "none left" in closed.value.why
    state = read_state(state_folder(tmp_path, NAME))
    hours = 24 if code in BARRED else 0.5
    until = (NOW + timedelta(hours=hours)).isoformat()
    assert [(row.offer, row.until) for row in state.closed] == [("aws/g6.xlarge", until)]
    assert until in closed.value.why and living(ec2) == []


def test_a_closed_offer_is_not_asked_for_again_before_its_time(moto, faulty, ec2, tmp_path):
    aws, faults = faulty
    plan = plan_of(tmp_path, pool("l4", 1))
    faults.add("RunInstances", "InsufficientInstanceCapacity")
    with pytest.raises(OfferClosed):
        apply(aws, plan, tmp_path)
    calls = faults.names().count("RunInstances")
    with pytest.raises(OfferClosed):
        apply(aws, plan, tmp_path)
    assert faults.names().count("RunInstances") == calls
    later = driver(moto, now=lambda: NOW + timedelta(minutes=31))
    up = apply(later, plan, tmp_path)
    assert up.state.phase is Phase.READY and up.state.closed == [] and len(living(ec2)) == 1
    assert later.destroy(tmp_path, NAME).killed == 1


def test_the_plan_is_solved_again_without_what_is_closed_and_keeps_its_lineage(faulty, ec2, solved, tmp_path):
    aws, faults = faulty
    first = solved.payload.allocation[0]
    faults.add("RunInstances", "InsufficientInstanceCapacity", **of_pool(first))
    up = apply(aws, solved, tmp_path, replan=replan(tmp_path))
    new = up.plan
    assert new.digest != solved.digest and load(new.path).digest == new.digest
    assert {row.offer for row in new.payload.allocation}.isdisjoint({first.offer})
    assert ("solved again", solved.digest) in {(row.role, row.digest) for row in new.manifest.inputs}
    assert new.manifest.options["at_most"] == {f"{first.offer}@{first.region}": 0}
    assert new.payload.cost_usd_per_hour >= solved.payload.cost_usd_per_hour
    wanted = sum(row.count for row in new.payload.allocation)
    assert len(living(ec2)) == wanted and up.state.plan_digest == new.digest
    assert types(ec2) == {row.offer.removeprefix("aws/") for row in new.payload.allocation}
    again = apply(aws, solved, tmp_path, replan=replan(tmp_path))
    assert again.plan.digest == new.digest and len(living(ec2)) == wanted
    aws.destroy(tmp_path, NAME)
    assert leftovers(ec2) == []


def test_machines_that_were_had_before_an_offer_closed_count_and_stay(faulty, ec2, tmp_path):
    aws, faults = faulty
    plan = solve(tmp_path, SPEC.replace("[L4, L40S, A10G]", "[L4, A10G]"))
    first = max(plan.payload.allocation, key=lambda row: row.count)
    assert first.count > 1
    faults.add("RunInstances", "VcpuLimitExceeded", after=1, **of_pool(first))
    up = apply(aws, plan, tmp_path, replan=replan(tmp_path))
    assert up.plan.manifest.options["at_most"] == {f"{first.offer}@{first.region}": 1}
    held = [row for row in up.plan.payload.allocation if row.offer == first.offer]
    assert sum(row.count for row in held) <= 1
    assert len(living(ec2)) == sum(row.count for row in up.plan.payload.allocation)


def test_where_nothing_else_serves_it_is_infeasible_and_nothing_is_left(faulty, ec2, solved, tmp_path):
    aws, faults = faulty
    faults.add("RunInstances", "InsufficientInstanceCapacity", message="none")
    with pytest.raises(Infeasible) as none:
        apply(aws, solved, tmp_path, replan=replan(tmp_path))
    assert none.value.exit_code == 3 and "closed until 2026-11-25T12:30:00+00:00" in none.value.why
    closed = read_state(state_folder(tmp_path, NAME)).closed
    assert len(closed) > 1 and living(ec2) == []
    aws.destroy(tmp_path, NAME)
    assert leftovers(ec2) == []


def test_a_plan_that_does_not_say_what_it_was_solved_from_is_not_solved_again(faulty, ec2, tmp_path):
    aws, faults = faulty
    faults.add("RunInstances", "SpotMaxPriceTooLow", message="too low")
    with pytest.raises(Infeasible) as none:
        apply(aws, plan_of(tmp_path, pool("a10g-spot", 1)), tmp_path, replan=replan(tmp_path))
    assert "aws/g5.xlarge:spot can't be had in us-east-1" in none.value.what
    assert "can't be solved again" in none.value.why and "until" in none.value.why
    assert living(ec2) == []


def test_a_plan_keeps_its_spec_and_offers_and_the_same_question_gives_the_same_answer(solved, tmp_path):
    spec = json.loads((solved.path / "spec.json").read_bytes())
    assert spec["workload"]["rate_rps"] == 8 and spec["offers"]["regions"] == ["us-east-1"]
    offers = json.loads((solved.path / "offers.json").read_bytes())
    assert {row["cloud"] for row in offers} == {"aws"}
    again = replan_around(tmp_path, solved, {})
    assert again.payload.allocation == solved.payload.allocation
    assert len(entries(tmp_path, "plan")) == 2


def test_a_model_that_changed_since_is_refused(solved, tmp_path):
    changed = solved.payload.model_copy(update={"model": None})
    closed = {("aws/g6.xlarge", "us-east-1"): 0}
    with pytest.raises(Infeasible, match="can't be solved again"):
        replan_around(tmp_path, type(solved)(solved.path, solved.manifest, changed), closed)


def test_a_trace_that_changed_since_is_refused(tmp_path):
    trace = tmp_path / "trace.csv"
    rows = [f"2026-01-01 00:00:{second:02d}.0000000,{500 + second},100" for second in range(60)]
    trace.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows, ""]))
    plan = solve(tmp_path, SPEC.replace("{lengths: chat, rate_rps: 8}", f"{{trace: {trace}, rate_rps: 8}}"))
    closed = {(row.offer, row.region): 0 for row in plan.payload.allocation[:1]}
    around = replan_around(tmp_path, plan, closed)
    assert around.payload.allocation != plan.payload.allocation
    trace.write_text(trace.read_text().replace(",100", ",101"))
    with pytest.raises(Infeasible, match="can't be solved again"):
        replan_around(tmp_path, plan, closed)
    trace.unlink()
    with pytest.raises(Infeasible, match="can't be solved again") as gone:
        replan_around(tmp_path, plan, closed)
    assert "trace" in gone.value.why
