"""Payload of a deployment: what was started for a plan."""

from hgpu.artifacts.manifest import Strict
from hgpu.core.operating_point import OperatingPoint


class SlotRow(Strict):
    """One engine: the pool that it serves, where it answers, and its command line."""

    slot: str
    pool: str
    point: OperatingPoint
    cores: list[int]
    gpus: list[int]
    command: list[str]


class DeploymentPayload(Strict):
    """A plan made real on a target. Ports, process and machine ids live in the state, not here.

    `completion_tokens` is 0 where no completion was made: the engines couldn't be asked from where hgpu ran.
    """

    name: str
    target: str
    slots: list[SlotRow]
    router: list[str]
    model_source: str
    completion_tokens: int
