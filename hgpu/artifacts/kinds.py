"""The kinds of artifact that this hgpu reads and writes."""

from dataclasses import dataclass

from hgpu.artifacts.manifest import Strict
from hgpu.artifacts.payloads.activations import ActivationsPayload
from hgpu.artifacts.payloads.bench import BenchPayload
from hgpu.artifacts.payloads.comparison import ComparisonPayload
from hgpu.artifacts.payloads.deployment import DeploymentPayload
from hgpu.artifacts.payloads.job import JobPayload
from hgpu.artifacts.payloads.latency import LatencyPayload
from hgpu.artifacts.payloads.load import LoadPayload
from hgpu.artifacts.payloads.memory import MemoryPayload
from hgpu.artifacts.payloads.placement import PlacementPayload
from hgpu.artifacts.payloads.plan import PlanPayload
from hgpu.artifacts.payloads.profile import ProfilePayload
from hgpu.artifacts.payloads.routing import RoutingPayload
from hgpu.artifacts.payloads.simulation import SimulationPayload
from hgpu.artifacts.payloads.tuning import TuningPayload
from hgpu.core.errors import UnknownName


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind's name, its current schema version and the model of its payload."""

    name: str
    version: int
    payload: type[Strict]


KINDS = {
    kind.name: kind
    for kind in (
        Kind("profile", 3, ProfilePayload),
        Kind("routing", 1, RoutingPayload),
        Kind("latency", 3, LatencyPayload),
        Kind("plan", 4, PlanPayload),
        Kind("placement", 1, PlacementPayload),
        Kind("simulation", 1, SimulationPayload),
        Kind("deployment", 3, DeploymentPayload),
        Kind("bench", 1, BenchPayload),
        Kind("load", 1, LoadPayload),
        Kind("comparison", 1, ComparisonPayload),
        Kind("memory", 1, MemoryPayload),
        Kind("tuning", 2, TuningPayload),
        Kind("activations", 1, ActivationsPayload),
        Kind("job", 1, JobPayload),
    )
}


def kind_of(name: str) -> Kind:
    """Return the kind called `name`, or raise UnknownName."""
    if name not in KINDS:
        raise UnknownName("artifact kind", name, KINDS)
    return KINDS[name]
