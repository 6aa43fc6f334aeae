"""What `hgpu plan` keeps of a reinforcement-learning loop: where each component runs, and what else could."""

from pydantic import Field

from hgpu.artifacts.manifest import Strict
from hgpu.core.provenance import Provenance


class PlacedComponent(Strict):
    """A component on GPUs of one pool, first and last included; they count from 0 in each pool.

    `seconds` are those of an iteration; of one step of a stage for the simulator and the policy of an
    embodied loop, which have `envs_per_process` environments in it.
    """

    name: str
    gpu: str
    first_gpu: int
    last_gpu: int
    model_parallel: int
    seconds: float
    provenance: Provenance
    envs_per_process: int | None = None
    source: str = ""

    @property
    def gpus(self) -> int:
        """How many GPUs it has."""
        return self.last_gpu - self.first_gpu + 1

    @property
    def processes(self) -> int:
        """How many processes run on them."""
        return self.gpus // self.model_parallel


class PlacedPool(Strict):
    """A pool, what is used of it, and what that costs; `pay` says what of it is paid."""

    gpu: str
    gpus: int
    used: int
    gpus_per_node: int
    paid_gpus: int
    usd_per_gpu_hour: float
    usd_per_hour: float
    pay: str
    source: str = ""
    offer: str = ""
    region: str = ""
    market: str = ""

    @property
    def nodes(self) -> int:
        """Nodes that hold the used GPUs."""
        return -(-self.used // self.gpus_per_node)


class Alternative(Strict):
    """The best placement of one way to share GPUs; of a mode without any, only why."""

    mode: str
    layout: str = ""
    stages: int = 1
    iteration_s: float | None = None
    usd_per_iteration: float | None = None
    gpus: int | None = None
    where: str = ""
    provenance: Provenance | None = None
    reason: str = ""


class Binding(Strict):
    """What holds the answer back, and what an iteration would take and cost without it."""

    what: str
    iteration_s: float | None = None
    usd_per_iteration: float | None = None


class PlacementPayload(Strict):
    """The placement of a loop.

    `model` names the equations behind `iteration_s`. `missing` says which counts nothing was measured for, so
    that nothing was placed there.
    """

    name: str
    workflow: str
    objective: str
    mode: str
    layout: str
    stages: int
    model: str
    provenance: Provenance
    iteration_s: float
    usd_per_hour: float
    usd_per_iteration: float
    iterations: int | None = None
    deadline_s: float | None = None
    budget_usd: float | None = None
    batches: int | None = None
    steps: int | None = None
    envs: int | None = None
    group_size: int = 1
    switch_s: float = 0.0
    sync_s: float = 0.0
    components: list[PlacedComponent]
    pools: list[PlacedPool]
    alternatives: list[Alternative] = Field(default_factory=list)
    binding: list[Binding] = Field(default_factory=list)
    missing: list[str] = Field(default_factory=list)

    @property
    def total_s(self) -> float | None:
        """Seconds of all iterations."""
        return None if self.iterations is None else self.iterations * self.iteration_s

    @property
    def total_usd(self) -> float | None:
        """Money of all iterations."""
        return None if self.iterations is None else self.iterations * self.usd_per_iteration
