"""A planned job as its payload: the choice, its memory, the runners-up and what was refused."""

from collections.abc import Iterable, Sequence

from hgpu.artifacts.payloads.job import (
    ActivationSource,
    BindingRow,
    JobChoice,
    JobPayload,
    JobSolver,
    MomentRow,
    PlacedRow,
    RefusedRow,
)
from hgpu.catalog.gpus import resolve_gpu
from hgpu.core.provenance import Provenance
from hgpu.core.training import Method, Offload
from hgpu.solvers.job_tiers import placement_gap
from hgpu.solvers.job_ways import GIB, Unusable, Way, training_of
from hgpu.specs.finetune_job import Finetune

MOST_ALTERNATIVES = 8


def job_payload(
    name: str,
    finetune: Finetune,
    way: Way,
    kept: Sequence[Way],
    ways: Sequence[Way],
    unusable: Sequence[Unusable],
    binding: Sequence[BindingRow],
    together_with: Sequence[str],
    size: tuple[int, int],
) -> JobPayload:
    """Return the payload of a job that runs as `way`.

    `ways` are all that were tried, the cheapest first, and `kept` those that could take its place.
    """
    spec, training = finetune.spec, training_of(finetune)
    return JobPayload(
        name=finetune.name,
        model=finetune.model,
        model_source=spec.model,
        spec=spec.model_dump(mode="json"),
        steps=spec.total_steps,
        tokens=spec.total_tokens,
        deadline_h=spec.deadline_h,
        budget_usd=spec.budget_usd,
        choice=choice_of(way),
        convention=training.convention_text(way.variant),
        trainable=training.count(way.variant),
        memory=[MomentRow(moment=m.name, device=dict(m.device), host=dict(m.host)) for m in way.moments],
        device_capacity_bytes=resolve_gpu(way.offer.gpu).memory_bytes,
        host_capacity_bytes=_host_capacity(way),
        placement=_placement(way),
        placement_gap=placement_gap(finetune, way),
        activations=ActivationSource(
            provenance=way.activations.provenance,
            source=way.activations.source,
            error=way.activations.error,
        ),
        binding=list(binding),
        alternatives=_alternatives(way, kept),
        refused=_refused(ways, unusable),
        together_with=list(together_with),
        solver=JobSolver(
            name="HiGHS", status="optimal", ways=len(ways), variables=size[0], constraints=size[1]
        ),
        provenance=Provenance.ESTIMATED,  # of time and money: no step was measured
    )


def choice_of(way: Way) -> JobChoice:
    """Return a way as a row."""
    offer = way.offer
    return JobChoice(
        offer=offer.name,
        region=offer.region,
        market=str(offer.market),
        gpu=offer.gpu,
        gpus_per_machine=offer.gpu_count,
        machines=way.machines,
        usd_per_hour=way.usd_per_hour,
        price_date=offer.price_date,
        price_source=offer.source,
        variant=way.variant,
        accumulation=way.accumulation,
        step_s=way.step.total_s,
        seconds_by_bound=dict(way.step.seconds_by_bound),
        bound=way.step.bound,
        hours=way.hours,
        cost_usd=way.cost_usd,
        memory_bytes=way.memory_bytes,
        host_bytes=way.host_bytes,
    )


def _host_capacity(way: Way) -> int | None:
    return sum(tier.capacity_bytes for tier in way.placement.tiers) if way.placement else None


def _placement(way: Way) -> list[PlacedRow]:
    if way.placement is None:
        return []
    names = [tier.name for tier in way.placement.tiers]
    return [
        PlacedRow(tensor=str(row.tensor.name), bytes_by_tier=dict(zip(names, row.bytes_by_tier, strict=True)))
        for row in way.placement.placed
    ]


def _alternatives(chosen: Way, kept: Sequence[Way]) -> list[JobChoice]:
    """Return the cheapest way of each method, rank, offloading and GPU type; the runner-up is the first."""
    found: dict[tuple[Method, int, Offload, str], Way] = {_kind(chosen): chosen}
    for way in kept:
        found.setdefault(_kind(way), way)
    return [choice_of(way) for way in list(found.values())[1 : 1 + MOST_ALTERNATIVES]]


def _kind(way: Way) -> tuple[Method, int, Offload, str]:
    return way.variant.method, way.variant.rank, way.variant.offload, way.offer.gpu


def _refused(ways: Iterable[Way], unusable: Sequence[Unusable]) -> list[RefusedRow]:
    """Return what can't run: by GPU type where memory lacks, and each other reason once."""
    short: dict[str, list[Way]] = {}
    for way in ways:
        if way.short_bytes:
            short.setdefault(way.offer.gpu, []).append(way)
    rows = []
    for gpu, lacking in short.items():
        near = min(lacking, key=lambda way: (way.short_bytes, *way.key))
        nearest = (
            f"{near.variant.name}, micro-batch {near.variant.micro_batch}: {near.short_bytes / GIB:.1f} GiB"
        )
        rows.append(RefusedRow(reason=f"too little memory on {gpu}", ways=len(lacking), nearest=nearest))
    reasons: dict[str, list[Unusable]] = {}
    for row in unusable:
        reasons.setdefault(row.text, []).append(row)
    return rows + [
        RefusedRow(reason=text, ways=len(named), nearest=min(named, key=lambda row: row.short_bytes).way)
        for text, named in reasons.items()
    ]
