"""From a spec to the nouns that a planner works with."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from hgpu.artifacts.digest import file_digest
from hgpu.artifacts.manifest import InputRef
from hgpu.catalog.gpus import resolve_gpu
from hgpu.catalog.models import load_model
from hgpu.catalog.offers import load_offers, select_offers
from hgpu.core.allocation import Rental
from hgpu.core.errors import InputError
from hgpu.core.model import ModelSpec
from hgpu.core.offer import Offer
from hgpu.core.operating_point import EngineOptions, Mode, OperatingPoint, timed_points
from hgpu.core.slo import Tier
from hgpu.core.workload import Workload
from hgpu.specs.offload import offload_points
from hgpu.specs.serve import ServeSpec, WorkloadSpec
from hgpu.workloads.histogram import DEFAULT_EDGES, Edges, workload_from_lengths, workload_from_trace
from hgpu.workloads.readers import read_trace


@dataclass(frozen=True, slots=True)
class Service:
    """A model with its source, a workload, objectives, operating points and offers to choose from.

    `limits` caps counts of machines or GPUs (`hgpu/solvers/limits.py` knows the names), `min_engines` is
    how many engines must run at least, and `spare_machines` how many each pool can lose. At most
    `spot_share` of a bucket goes to spot machines, which are there `spot_availability` of the time.
    `files` are the inputs by their hashes. Where it is `routed_by_input`, requests of one input are shared
    out alike whatever their output, which no router knows beforehand. Machines `beside` it run something
    else: they count against limits and supply.
    """

    model: ModelSpec
    model_source: str
    workload: Workload
    tiers: tuple[Tier, ...]
    points: tuple[OperatingPoint, ...]
    offers: tuple[Offer, ...]
    limits: dict[str, int]
    min_engines: int
    files: tuple[InputRef, ...]
    spot_share: float = 1.0
    spot_availability: float = 1.0
    spare_machines: int = 0
    budget_usd_per_hour: float | None = None
    trace: Path | None = None
    routed_by_input: bool = True
    routing: str | None = None
    beside: tuple[Rental, ...] = ()

    @property
    def name(self) -> str:
        """Model and workload, for titles and slugs."""
        return f"{Path(self.model_source).name} {self.workload.name}"

    @property
    def timed_points(self) -> tuple[OperatingPoint, ...]:
        """The points whose steps have to be timed: several may take the same ones."""
        return tuple(dict.fromkeys(timed_points(self.points).values()))


def service_of(spec: ServeSpec, today: date | None = None, offers: Sequence[Offer] | None = None) -> Service:
    """Return the service that a spec describes; reads model config and trace, and the prices unless given.

    Raises InputError or UnknownName for whatever the spec names and can't be used, prices among them
    that are older `today` than the spec allows.
    """
    model = load_model(spec.model, spec.dtype)
    workload, files = workload_of(spec.workload)
    gpus = list(dict.fromkeys(resolve_gpu(name).name for name in spec.gpus))
    engines = spec.engine.to_options()
    engine = engines[0]
    if engine.max_model_len > model.max_context_tokens:
        raise InputError(
            f"engine.max_model_len {engine.max_model_len} is more than {spec.model} can do",
            f"its context is {model.max_context_tokens} tokens",
            f"set engine.max_model_len to {model.max_context_tokens} or less",
        )
    points = _points(spec, model, gpus, engines)
    if offers is None:
        offers = select_offers(
            load_offers(spec.offers.book),
            gpus=gpus,
            clouds=spec.offers.clouds,
            markets=[str(market) for market in spec.offers.markets],
            regions=spec.offers.regions,
        )
    check_age(offers, spec.offers.max_price_age_days, today or date.today())
    return Service(
        model,
        spec.model,
        workload,
        spec.slo.to_tiers(),
        points,
        tuple(offers),
        dict(spec.limits),
        spec.min_engines,
        files,
        spec.spot.max_share,
        spec.spot.availability,
        spec.spare_machines,
        spec.budget_usd_per_hour,
        Path(spec.workload.trace) if spec.workload.trace else None,
        spec.routing == "input",
        spec.offload.routing if Mode.OFFLOAD in spec.modes else None,
    )


def _points(
    spec: ServeSpec, model: ModelSpec, gpus: Sequence[str], engines: Sequence[EngineOptions]
) -> tuple[OperatingPoint, ...]:
    degrees = sorted(set(spec.tensor_parallel))
    modes = sorted(set(spec.modes) - {Mode.OFFLOAD}, key=list(Mode).index)
    points = [
        OperatingPoint(gpu, tp, mode, model.weight_dtype, engine)
        for gpu in gpus
        for tp in degrees
        for mode in modes
        for engine in engines
    ]
    if Mode.OFFLOAD in spec.modes:
        points += [
            p for engine in engines for p in offload_points(spec.offload, model, gpus, degrees, engine)
        ]
    return tuple(points)


def check_age(offers: Sequence[Offer], most_days: int | None, today: date) -> None:
    """Raise InputError for a price that is older than a spec allows; None allows any age."""
    oldest = min(offers, key=lambda offer: offer.price_date, default=None)
    if oldest is None or most_days is None:
        return
    days = (today - date.fromisoformat(oldest.price_date)).days
    if days > most_days:
        raise InputError(
            f"the price of {oldest.name} is {days} days old",
            f"it is of {oldest.price_date}, the oldest, and offers.max_price_age_days is {most_days}",
            f"give a newer price book, leave its cloud, region or market out, or allow {days} days",
        )


def workload_of(spec: WorkloadSpec) -> tuple[Workload, tuple[InputRef, ...]]:
    """Return the workload, and the trace file that it was made from as an input."""
    files: tuple[InputRef, ...] = ()
    edges = Edges(
        tuple(spec.input_edges) if spec.input_edges else DEFAULT_EDGES.input,
        tuple(spec.output_edges) if spec.output_edges else DEFAULT_EDGES.output,
    )
    if spec.trace is not None:
        workload = workload_from_trace(read_trace(spec.trace), spec.rate_rps, edges)
        files = (InputRef(role="trace", kind="file", digest=file_digest(Path(spec.trace))),)
    else:
        assert spec.lengths is not None and spec.rate_rps is not None
        workload = workload_from_lengths(spec.lengths, spec.rate_rps, spec.requests, spec.seed, edges)
    if workload.outside_share > 0 and not spec.allow_outside:
        raise InputError(
            f"{workload.outside_share:.2%} of the requests of '{workload.name}' fit no bucket",
            f"they are empty or longer than {edges.input[-1]} in or {edges.output[-1]} out",
            "raise workload.input_edges or output_edges, or set workload.allow_outside: true",
        )
    return workload, files
