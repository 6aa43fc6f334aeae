"""What `hgpu deploy` calls: which options go where, the go-ahead, the launch, the record."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hgpu.artifacts.payloads.deployment import DeploymentPayload
from hgpu.artifacts.payloads.plan import PlanPayload
from hgpu.artifacts.reuse import save_once
from hgpu.artifacts.store import Artifact, Draft
from hgpu.commands.asking import ask
from hgpu.commands.replanning import replan_around
from hgpu.core.errors import InputError
from hgpu.deploy.driver import Deployed, DeployOptions, Driver
from hgpu.deploy.drivers import AWS
from hgpu.deploy.ec2.apply import Launched, Replan
from hgpu.deploy.ec2.diff import Action, Diff
from hgpu.deploy.ec2.driver import Ec2Driver
from hgpu.deploy.ec2.options import Ec2Options, Waits
from hgpu.deploy.ec2.record import ec2_payload
from hgpu.deploy.ec2.state import ClosedOffer
from hgpu.deploy.record import deployment_payload
from hgpu.deploy.render.document import refuse_passed_over, refuse_rendering
from hgpu.deploy.render.targets import LOCAL, require_launched
from hgpu.report.ec2 import diff_lines
from hgpu.report.output import note, usd

Plan = Artifact[PlanPayload]
# Options of `--dry-run` that say what is rendered for launches too.
RENDERED_FOR_AWS = ("name", "image", "secret")


@dataclass(frozen=True, slots=True)
class Aws:
    """How to deploy to AWS: `yes` is the go-ahead, without which a terminal is asked."""

    root: Path
    options: Ec2Options
    timeout_s: float | None
    yes: bool = False
    replans: bool = True

    @property
    def driver(self) -> Ec2Driver:
        """The driver, with as much patience as was given."""
        return Ec2Driver(waits=Waits() if self.timeout_s is None else Waits(health_s=self.timeout_s))


def aws_diff(plan: Plan, asked: Aws) -> Diff:
    """Return what a deploy would change."""
    return asked.driver.diff(plan, asked.root, asked.options)


def aws_deploy(plan: Plan, asked: Aws) -> tuple[Artifact[DeploymentPayload], Launched]:
    """Launch a plan, or what of it isn't there, and keep a record of it."""

    def approve(diff: Diff) -> None:
        for line in diff_lines(diff):
            note(line)
        if not asked.yes:
            _ask(diff)

    replan = replanner(asked.root) if asked.replans else None
    launched = asked.driver.apply(plan, asked.root, asked.options, approve, replan, note)
    payload = ec2_payload(launched, asked.options)
    inputs = [launched.plan.as_input("plan")]
    return save_once(asked.root, Draft("deployment", payload.name, payload, inputs=inputs)), launched


def replanner(root: Path) -> Replan:
    """Return what solves a plan again around closed offers, and says what that costs."""

    def replan(plan: Plan, closed: Sequence[tuple[ClosedOffer, int]]) -> Plan:
        made = replan_around(root, plan, {(row.offer, row.region): held for row, held in closed})
        old, new = plan.payload.cost_usd_per_hour, made.payload.cost_usd_per_hour
        sign = "+" if new >= old else "-"
        note(
            f"plan {made.short} instead of {plan.short}: {usd(new)} USD/h, {sign}{usd(abs(new - old))} USD/h"
        )
        return made

    return replan


def launch(
    plan: Plan, root: Path, driver: Driver, options: DeployOptions
) -> tuple[Artifact[DeploymentPayload], Deployed]:
    """Start a plan on this machine or in a cluster, and keep a record of it."""
    deployed = driver.apply(plan, root, options, note)
    payload = deployment_payload(plan.payload, deployed, options.load_format)
    draft = Draft("deployment", payload.name, payload, inputs=[plan.as_input("plan")])
    return save_once(root, draft), deployed


@dataclass(frozen=True, slots=True)
class Given:
    """Options by what they are of: what is rendered, its files, any launch, a cluster's, and one on aws."""

    rendering: Mapping[str, object]
    files: Mapping[str, object]
    launching: Mapping[str, object]
    cluster: Mapping[str, object]
    aws: Mapping[str, object]


def refuse_misplaced(target: str, dry_run: bool, given: Given) -> None:
    """Raise InputError for options that a target, or a dry run, would pass over."""
    on_aws = target == AWS and not dry_run
    if not on_aws:
        _refuse(given.aws, "of launches on aws", "nothing is launched there now")
    if dry_run:
        refuse_passed_over([name for name, value in given.cluster.items() if value], "of a launch")
        return
    require_launched(target)
    if target != LOCAL:
        _refuse({"two-engines": given.launching.get("two_engines")}, "of local", "no other starts pairs")
    foreign = {"local": given.rendering, AWS: _others(given.rendering, RENDERED_FOR_AWS)}.get(target, {})
    refuse_rendering([name for name, value in {**foreign, **given.files}.items() if value is not None])
    if on_aws:
        _refuse(given.cluster, "of a cluster", "`aws` has none")
        _refuse(
            {"load-format": given.launching.get("load_format", "auto") != "auto"},
            "of local",
            "machines of AWS load the model's weights",
        )


def _others(options: Mapping[str, object], known: Sequence[str]) -> dict[str, object]:
    return {name: value for name, value in options.items() if name not in known}


def _refuse(options: Mapping[str, object], of: str, why: str) -> None:
    words = [f"--{name}" for name, value in options.items() if value]
    if words:
        raise InputError(f"{', '.join(words)}: {of}", why, "drop it")


def _ask(diff: Diff) -> None:
    machines = diff.counted(Action.LAUNCH, Action.REPLACE)
    ask(
        f"{machines} machines would be launched; {usd(diff.after_usd_per_hour)} USD/h in all",
        "read what would change above, and add --yes",
    )
