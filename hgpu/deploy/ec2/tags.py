"""The tags that tell whose a resource is. They alone are enough to find everything and take it away."""

from collections.abc import Mapping, Sequence

from hgpu.deploy.ec2.state import Ec2State, MachineState

DEPLOYMENT = "hgpu:deployment"
LINEAGE = "hgpu:lineage"
POOL = "hgpu:pool"
SLOT = "hgpu:slot"
GENERATION = "hgpu:generation"
ATTEMPT = "hgpu:attempt"

Tag = dict[str, str]


def machine_tags(state: Ec2State, machine: MachineState) -> list[Tag]:
    """Return the tags of a machine and its volumes."""
    values = {
        DEPLOYMENT: state.name,
        LINEAGE: state.lineage,
        POOL: machine.pool,
        SLOT: machine.slot,
        GENERATION: str(machine.generation),
        ATTEMPT: str(machine.attempt),
        "Name": f"{state.name}/{machine.slot}",
    }
    return [{"Key": key, "Value": value} for key, value in values.items()]


def of_deployment(name: str) -> list[dict[str, object]]:
    """Return the filter of describe calls for a deployment's resources."""
    return [{"Name": f"tag:{DEPLOYMENT}", "Values": [name]}]


def of_machine(name: str, machine: MachineState) -> list[dict[str, object]]:
    """Return the filter of describe calls for one machine, in this attempt at it."""
    values = {SLOT: machine.slot, GENERATION: str(machine.generation), ATTEMPT: str(machine.attempt)}
    mine: list[dict[str, object]] = [
        {"Name": f"tag:{key}", "Values": [value]} for key, value in values.items()
    ]
    return [*of_deployment(name), *mine]


def read_tags(rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return tags as a map."""
    return {row["Key"]: row["Value"] for row in rows}


def carries(tags: Mapping[str, str], machine: MachineState) -> bool:
    """Tell whether tags are those of a machine, in this attempt at it."""
    wanted = (machine.slot, str(machine.generation), str(machine.attempt))
    return (tags.get(SLOT), tags.get(GENERATION), tags.get(ATTEMPT)) == wanted


def generation_of(tags: Mapping[str, str]) -> int:
    """Return the generation in tags, zero where there is none."""
    value = tags.get(GENERATION, "")
    return int(value) if value.isdigit() else 0
