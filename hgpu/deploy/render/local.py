"""The target `local`, dry: what would be started on this machine, one file a process."""

from collections.abc import Sequence

from hgpu.artifacts.payloads.plan import PlanPayload
from hgpu.deploy.launch import Commands, Launch
from hgpu.deploy.render.document import Body, Document
from hgpu.deploy.slots import Slot
from hgpu.runtime.ports import local_url

ANY_PORT = 0  # the start chooses free ones


def local_documents(
    plan: PlanPayload, slots: Sequence[Slot], commands: Commands, load_format: str
) -> list[Document]:
    """Return the command, the environment and the place of every process; ports read 0 before a start.

    The environment is what hgpu adds to its own. An API key travels there too, and is not in the files.
    """
    documents = [
        Document(f"{slot.name}.yaml", _body(slot, _launch(plan, slot, commands, load_format)))
        for slot in slots
    ]
    if len(slots) > 1:
        router = commands.router(ANY_PORT, ANY_PORT, [local_url(ANY_PORT) for _ in slots])
        documents.append(Document("router.yaml", {"slot": "router", "role": "router"} | _started(router)))
    return documents


def _launch(plan: PlanPayload, slot: Slot, commands: Commands, load_format: str) -> Launch:
    return commands.engine(plan, slot.point, slot.place, ANY_PORT, load_format)


def _body(slot: Slot, launch: Launch) -> Body:
    place = {"cores": list(slot.place.cores), "gpus": list(slot.place.gpus)}
    return {"slot": slot.name, "role": "engine", "pool": slot.pool} | place | _started(launch)


def _started(launch: Launch) -> dict[str, object]:
    return {"command": launch.command, "environment": launch.environment}
