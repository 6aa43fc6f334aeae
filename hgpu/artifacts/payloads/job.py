"""Payload of a planned training job: what is rented, how it trains, what binds, and what else there was.

A kind of its own beside `plan`: a plan is a fleet with a price an hour, a job ends and has a price.
"""

from typing import Any

from hgpu.artifacts.manifest import Strict
from hgpu.core.model import ModelSpec
from hgpu.core.provenance import Provenance
from hgpu.core.training import TrainableCount, Variant


class MomentRow(Strict):
    """Bytes by item at a moment of a step, on each GPU and on the machine's host."""

    moment: str
    device: dict[str, float]
    host: dict[str, float]


class PlacedRow(Strict):
    """An offloaded tensor and its bytes in each memory tier."""

    tensor: str
    bytes_by_tier: dict[str, int]


class PlacementGap(Strict):
    """A step by the published placement in memory tiers, and by the shortest (`proven`: none is shorter)."""

    rule_step_s: float
    exact_step_s: float
    proven: bool


class JobChoice(Strict):
    """One way to run the job on machines of one offer; `bound` is what most of a step is spent on.

    `memory_bytes` is the most that a GPU holds, `host_bytes` that the machine's host does.
    """

    offer: str
    region: str
    market: str
    gpu: str
    gpus_per_machine: int
    machines: int
    usd_per_hour: float
    price_date: str
    price_source: str
    variant: Variant
    accumulation: int
    step_s: float
    seconds_by_bound: dict[str, float]
    bound: str
    hours: float
    cost_usd: float
    memory_bytes: float
    host_bytes: float


class BindingRow(Strict):
    """A constraint, whether it binds, and the cheapest job without it (empty where there is none)."""

    bound: str
    binds: bool
    without: str
    saves_usd: float | None


class RefusedRow(Strict):
    """Why some ways can't be had; `nearest` is the one that misses by least."""

    reason: str
    ways: int
    nearest: str


class JobSolver(Strict):
    """How the answer was found; the seconds it took stand in the manifest's timings."""

    name: str
    status: str
    ways: int
    variables: int
    constraints: int


class ActivationSource(Strict):
    """Where the activations' bytes come from, and the error of the fit where they were measured."""

    provenance: Provenance
    source: str
    error: float


class JobPayload(Strict):
    """The cheapest way to train that keeps the deadline and fits in memory.

    `spec` is the spec of the fine-tune with every list as it was; `convention` names whose count of bytes a
    parameter is used. `together_with` names other jobs that were planned at once and share the limits.
    """

    name: str
    model: ModelSpec
    model_source: str
    spec: dict[str, Any]
    steps: int
    tokens: int
    deadline_h: float | None
    budget_usd: float | None
    choice: JobChoice
    convention: str
    trainable: TrainableCount
    memory: list[MomentRow]
    device_capacity_bytes: int
    host_capacity_bytes: int | None
    placement: list[PlacedRow]
    placement_gap: PlacementGap | None = None
    activations: ActivationSource
    binding: list[BindingRow]
    alternatives: list[JobChoice]
    refused: list[RefusedRow]
    together_with: list[str]
    solver: JobSolver
    provenance: Provenance
