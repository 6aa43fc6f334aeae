"""What a deployment on EC2 leaves among the artifacts: which engines its machines were told to start."""

import shlex

from hgpu.artifacts.payloads.deployment import DeploymentPayload, SlotRow
from hgpu.deploy.ec2.apply import Launched
from hgpu.deploy.ec2.options import Ec2Options
from hgpu.deploy.ec2.state import TARGET, MachineState
from hgpu.deploy.ec2.wanted import WantedPool
from hgpu.deploy.render.aws import engine_commands


def ec2_payload(launched: Launched, options: Ec2Options) -> DeploymentPayload:
    """Return the payload of the `deployment` artifact; without completions where none could be asked."""
    plan = launched.plan.payload
    by_template = {pool.template: pool for pool in launched.pools}
    commands = {pool.template: engine_commands(plan, pool.row, options.render) for pool in launched.pools}
    rows = [
        _row(machine, by_template[machine.template], number, command)
        for machine in sorted(launched.state.machines, key=lambda machine: machine.slot)
        for number, command in enumerate(commands[machine.template])
    ]
    return DeploymentPayload(
        name=launched.state.name,
        target=TARGET,
        slots=rows,
        router=[],
        model_source=plan.model_source,
        completion_tokens=sum(answer.completion.tokens for answer in launched.answers),
    )


def _row(machine: MachineState, pool: WantedPool, number: int, command: str) -> SlotRow:
    first = number * pool.row.tp
    return SlotRow(
        slot=f"{machine.slot}/engine-{number}",
        pool=pool.row.pool,
        point=pool.row.point,
        cores=[],
        gpus=list(range(first, first + pool.row.tp)),
        command=shlex.split(command),
    )
