"""What a placement is chosen from: pools of GPUs, components with the seconds that they take, and limits."""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hgpu.core.offer import Offer
from hgpu.core.provenance import Provenance, weakest
from hgpu.latency.rl_profile import Curve, Reading
from hgpu.specs.rl import Pay, RlMode

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pool:
    """GPUs of one type that may be used, in nodes, at a price."""

    gpu: str
    gpus: int
    gpus_per_node: int
    usd_per_gpu_hour: float
    pay: Pay = Pay.NODES
    source: str = ""
    offer: Offer | None = None

    def paid_gpus(self, used: int) -> int:
        """Return how many GPUs are paid for where so many are used."""
        if self.pay is Pay.POOL:
            return self.gpus
        return used if self.pay is Pay.GPUS else math.ceil(used / self.gpus_per_node) * self.gpus_per_node

    def usd_per_hour(self, used: int) -> float:
        """Return the price of so many used GPUs."""
        return self.paid_gpus(used) * self.usd_per_gpu_hour

    @property
    def prices(self) -> Floats:
        """USD/h of 0, 1, … GPUs."""
        return np.array([self.usd_per_hour(used) for used in range(self.gpus + 1)])


@dataclass(frozen=True, slots=True)
class Component:
    """A part of the loop: its seconds on each GPU type, and which numbers of GPUs it can run on.

    It runs as n / `model_parallel` processes, whose number must divide `divides` (0: any number does).
    """

    name: str
    curves: dict[str, Curve]
    model_parallel: int = 1
    divides: int = 0
    source: str = ""

    def processes(self, gpus: int) -> int | None:
        """Return how many processes so many GPUs hold, or None where they hold no whole number that fits."""
        count, rest = divmod(gpus, self.model_parallel)
        if rest or not count or (self.divides and self.divides % count):
            return None
        return count

    def reading(self, gpu: str, x: int) -> Reading | None:
        """Return the seconds on a GPU type, or None where nothing was measured there."""
        curve = self.curves.get(gpu)
        return None if curve is None else curve.at(x)


@dataclass(frozen=True, slots=True)
class Loop:
    """What an iteration does: `batches` (M) of a pipeline, or `steps` (H) of `envs` (E) environments.

    A stage of a simulator's process holds a multiple of `group_size` environments. Training that shares GPUs
    costs `switch_s` an iteration (offload and reload), and weights that go to other GPUs `sync_s`.
    """

    embodied: bool
    batches: int = 1
    steps: int = 1
    envs: int = 1
    group_size: int = 1
    stages: tuple[int, ...] = (1,)
    switch_s: float = 0.0
    sync_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What an iteration may take and cost; infinity where it may anything."""

    iteration_s: float = math.inf
    iteration_usd: float = math.inf


@dataclass(frozen=True, slots=True)
class Problem:
    """Components in the order of data, of which the last trains.

    `by_time`: the fastest placement is wanted, not the cheapest.
    """

    components: tuple[Component, ...]
    pools: tuple[Pool, ...]
    loop: Loop
    modes: tuple[RlMode, ...] = tuple(RlMode)
    by_time: bool = False
    limits: Limits = field(default_factory=Limits)

    def stage_envs(self, component: Component, gpus: int, stages: int) -> int | None:
        """Return how many environments a process has in a stage, or None where they can't be divided so."""
        processes = component.processes(gpus)
        if processes is None or self.loop.envs % (processes * stages):
            return None
        envs = self.loop.envs // (processes * stages)
        return None if component is self.components[0] and envs % self.loop.group_size else envs

    def component_reading(self, component: Component, gpu: str, gpus: int, stages: int = 1) -> Reading | None:
        """Return a component's seconds: of a stage's step for simulator and policy, else of an iteration."""
        if self.loop.embodied and component is not self.components[-1]:
            envs = self.stage_envs(component, gpus, stages)
            return None if envs is None else component.reading(gpu, envs)
        return None if component.processes(gpus) is None else component.reading(gpu, gpus)


@dataclass(frozen=True, slots=True)
class Part:
    """A component on so many GPUs of a pool, its seconds there, and their provenance."""

    component: str
    pool: int
    gpus: int
    reading: Reading
    blocks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Placement:
    """A choice: the mode, its layout, the stages, where each component runs, and what an iteration takes."""

    mode: RlMode
    layout: str
    stages: int
    parts: tuple[Part, ...]
    used: tuple[int, ...]
    iteration_s: float
    usd_per_hour: float

    @property
    def usd_per_iteration(self) -> float:
        """Price of an iteration."""
        return self.usd_per_hour * self.iteration_s / 3600

    @property
    def provenance(self) -> Provenance:
        """The weakest of its readings; a placement itself was never measured."""
        return weakest([Provenance.FITTED, *(part.reading.provenance for part in self.parts)])
