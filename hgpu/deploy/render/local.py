"""The target `local`, dry: what would be started on this machine, one file a process."""

from collections.abc import Sequence

from hgpu.deploy.render.document import Body, Document
from hgpu.deploy.slots import Slot, slot_states
from hgpu.deploy.starts import Starts
from hgpu.deploy.state import NO_PORT, Phase, SlotState, State


def local_documents(slots: Sequence[Slot], starts: Starts) -> list[Document]:
    """Return the command, the environment and the place of every process; ports read 0 before a start.

    The environment is what hgpu adds to its own. An API key travels there too, and is not in the files.
    """
    rows = [row.model_copy(update={"port": NO_PORT, "metrics_port": None}) for row in slot_states(slots)]
    name, digest = starts.folder.name, starts.ref.digest
    state = State(name=name, plan_digest=digest, target="local", phase=Phase.PLANNED, slots=rows)
    return [Document(f"{row.slot}.yaml", _body(row, state, starts)) for row in rows]


def _body(row: SlotState, state: State, starts: Starts) -> Body:
    launch = starts.launch(row, state)
    where = row.model_dump(mode="json", include={"slot", "role", "pool", "cores", "gpus"})
    return where | {"command": launch.command, "environment": launch.environment}
