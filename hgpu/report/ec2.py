"""Deployments on EC2 in the terminal and as JSON: what would change, and what is up."""

from dataclasses import asdict
from typing import Any

from hgpu.artifacts.payloads.deployment import DeploymentPayload
from hgpu.artifacts.store import Artifact
from hgpu.deploy.ec2.apply import Launched
from hgpu.deploy.ec2.diff import Action, Change, Diff
from hgpu.report.output import console, usd

_SIGNS = {
    Action.KEEP: "=",
    Action.LAUNCH: "+",
    Action.REPLACE: "±",
    Action.FINISH: "…",
    Action.TERMINATE: "-",
}


def diff_lines(diff: Diff) -> list[str]:
    """Return a diff as lines: a machine each, then the cost."""
    new = diff.counted(Action.LAUNCH, Action.REPLACE)
    gone = diff.counted(Action.TERMINATE)
    head = f"{diff.name} on aws: {new} to launch, {gone} to terminate, {diff.counted(Action.KEEP)} to keep"
    before, after, peak = map(
        usd, (diff.before_usd_per_hour, diff.after_usd_per_hour, diff.peak_usd_per_hour)
    )
    cost = f"cost: {before} USD/h now, {after} USD/h after, {peak} while old and new both run"
    prices = f"at the plan's prices, the oldest of {diff.price_date}; disks and traffic come on top"
    return [head, *map(_line, diff.changes), f"{cost} ({prices})"]


def print_diff(diff: Diff) -> None:
    """Print what `hgpu deploy` would change."""
    for line in diff_lines(diff):
        console().print(line, markup=False, soft_wrap=True)


def diff_json(diff: Diff) -> dict[str, Any]:
    """Return a diff as data."""
    return asdict(diff)


def print_launched(artifact: Artifact[DeploymentPayload], launched: Launched) -> None:
    """Print what is up, and what of it was observed."""
    state, out = launched.state, console()
    cost = sum(machine.usd_per_hour for machine in state.machines)
    word = "is up" if launched.changed else "was up already; nothing changed"
    out.print(
        f"[bold]{state.name}[/bold] {word}: {len(state.machines)} machines, {usd(cost)} USD/h, "
        f"plan {launched.plan.short}",
        soft_wrap=True,
    )
    out.print(_observed(launched), soft_wrap=True)
    out.print(f"deployment {artifact.short}  {artifact.path}", soft_wrap=True)


def launched_json(artifact: Artifact[DeploymentPayload], launched: Launched) -> dict[str, Any]:
    """Return the payload with the machines as they are now; `engines_observed` says whether any was asked."""
    return {
        **artifact.payload.model_dump(mode="json"),
        "digest": artifact.digest,
        "path": str(artifact.path),
        "plan_digest": launched.plan.digest,
        "changed": launched.changed,
        "usd_per_hour": sum(machine.usd_per_hour for machine in launched.state.machines),
        "machines": [machine.model_dump(mode="json") for machine in launched.state.machines],
        "closed": [row.model_dump(mode="json") for row in launched.state.closed],
        "engines_observed": bool(launched.answers),
    }


def _line(change: Change) -> str:
    what = f"{_SIGNS[change.action]} {change.action} {change.slot} {change.offer} {change.region}"
    ident = f" {change.instance_id}" if change.instance_id else ""
    why = f": {change.why}" if change.why else ""
    return f"  {what}{ident} {usd(change.usd_per_hour)} USD/h{why}"


def _observed(launched: Launched) -> str:
    if launched.answers:
        return f"all {len(launched.answers)} engines are healthy and made a token each"
    return (
        "machines run and pass EC2's checks; their engines were not observed from here "
        "(--private-addresses asks them from inside the network)"
    )
