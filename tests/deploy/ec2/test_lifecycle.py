"""Machines come, stay, are replaced and go, on EC2 as moto plays it."""

from ec2_cases import apply, leftovers, living, options, plan_of, pool, slots, templates

from hgpu.deploy.ec2.diff import Action
from hgpu.deploy.ec2.state import read_state
from hgpu.deploy.state import Phase
from hgpu.deploy.state_file import state_folder


def test_a_plan_comes_up_stays_and_goes(aws, ec2, tmp_path):
    plan = plan_of(tmp_path, pool("l4", 2), pool("a10g-spot", 1))
    diff = aws.diff(plan, tmp_path, options())
    assert [c.action for c in diff.changes] == [Action.LAUNCH] * 3
    assert diff.after_usd_per_hour == sum(r.usd_per_hour for r in plan.payload.allocation)
    assert living(ec2) == [] and not (tmp_path / "state").exists()
    up = apply(aws, plan, tmp_path)
    assert up.changed and up.state.phase is Phase.READY
    assert slots(living(ec2)) == ["a10g-spot-0", "l4-0", "l4-1"] and len(templates(ec2)) == 2
    again = apply(aws, plan, tmp_path)
    assert not again.changed and again.state == up.state
    (status,) = aws.status(tmp_path)
    assert status.phase is Phase.READY and status.drift == ()
    assert {slot.healthy for slot in status.slots} == {None}
    gone = aws.destroy(tmp_path, "chat")
    assert gone.killed == 3 and leftovers(ec2) == []
    assert read_state(state_folder(tmp_path, "chat")).phase is Phase.DESTROYED
    assert aws.status(tmp_path) == []
