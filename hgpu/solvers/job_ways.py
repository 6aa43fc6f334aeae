"""The ways to run a fine-tune: each variant on each offer, with memory, time and price, or why it can't be.

Of each variant the largest micro-batch that fits is kept: passes over the weights and all-reduces only get
fewer with it, and nothing gets slower.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby

from hgpu.catalog.gpus import resolve_gpu
from hgpu.core.errors import Infeasible
from hgpu.core.gpu import DType, GpuType, MemoryTier
from hgpu.core.offer import Offer
from hgpu.core.placement import TierPlacement
from hgpu.core.training import Activations, Offload, Variant
from hgpu.core.training_tensors import TrainingTensor
from hgpu.latency.training_memory import Moment, Training, host_tensors, moments, peak
from hgpu.latency.training_time import Step, hardware_of, optimizer_step
from hgpu.profilers.efficiency import efficiency_of
from hgpu.solvers.tier_placement import latency_first
from hgpu.specs.finetune import TRAINED_DTYPES
from hgpu.specs.finetune_job import GIGA, Finetune, HostUnknown

GIB = 2**30
ActivationsOf = Callable[[Variant], Activations]
HeldOf = Callable[[Variant, float], tuple[Moment, ...]]


@dataclass(frozen=True, slots=True)
class Way:
    """A variant on machines of an offer; it can run where `short_bytes`, what each GPU lacks, is 0."""

    offer: Offer
    machines: int
    variant: Variant
    accumulation: int
    moments: tuple[Moment, ...]
    placement: TierPlacement | None
    step: Step
    steps: int
    activations: Activations
    short_bytes: float = 0.0

    @property
    def memory_bytes(self) -> float:
        """The most that a GPU holds."""
        return peak(self.moments).device_bytes

    @property
    def host_bytes(self) -> float:
        """The most that the machine's host holds."""
        return max(moment.host_bytes for moment in self.moments)

    @property
    def hours(self) -> float:
        """From the first step to the last."""
        return self.step.total_s * self.steps / 3600.0

    @property
    def usd_per_hour(self) -> float:
        """Price of all machines."""
        return self.offer.usd_per_hour * self.machines

    @property
    def cost_usd(self) -> float:
        """Price of the job."""
        return self.hours * self.usd_per_hour

    @property
    def name(self) -> str:
        """Machines and method in words."""
        return (
            f"{self.machines}× {self.offer.name} ({self.variant.gpus}× {self.offer.gpu}), {self.variant.name}"
        )

    @property
    def key(self) -> tuple[float, str, str, str]:
        """The order of ways: the cheapest first, ties by name."""
        return (self.cost_usd, self.offer.name, self.offer.region, self.variant.name)


@dataclass(frozen=True, slots=True)
class Unusable:
    """A kind of way that can't be, why, and what would mend it; `short_bytes` is what its host lacks."""

    reason: str
    way: str
    fix: str = ""
    short_bytes: float = 0.0

    @property
    def text(self) -> str:
        """Why, and what to do."""
        return f"{self.reason}: {self.fix}" if self.fix else self.reason


def ways_of(finetune: Finetune, activations_of: ActivationsOf) -> tuple[list[Way], list[Unusable]]:
    """Return the ways with what they lack, the cheapest first, and what can't be at all."""
    ways, unusable = [], list(_undivided(finetune))
    training = training_of(finetune)

    @cache
    def held(variant: Variant, fixed: float) -> tuple[Moment, ...]:
        """Return the moments of a variant, which are the same with every offer of a GPU type."""
        passes = _accumulation(finetune, variant)
        return moments(training, variant, activations_of(variant), accumulation=passes, fixed_bytes=fixed)

    variants = [list(group) for _, group in groupby(finetune.variants(), _but_micro_batch)]
    for offer in finetune.offers:
        for group in variants:
            found = _best(finetune, offer, group, activations_of, held)
            if isinstance(found, Way):
                ways.append(found)
            elif found is not None:
                unusable.append(found)
    return sorted(ways, key=lambda way: way.key), unusable


def _but_micro_batch(variant: Variant) -> Variant:
    return replace(variant, micro_batch=1)


def _undivided(finetune: Finetune) -> Iterator[Unusable]:
    """Yield the degrees and micro-batches of the spec that nothing can have."""
    spec = finetune.spec
    for tp in spec.tensor_parallel:
        if all(offer.gpu_count < tp for offer in finetune.offers):
            yield Unusable(f"no offer has {tp} GPUs in a machine", f"tensor_parallel: {tp}", "allow others")
    for dp in spec.data_parallel:
        share, rest = divmod(spec.batch, dp)
        copies = f"data_parallel: {dp}"
        if rest:
            yield Unusable(
                f"batch {spec.batch} isn't a multiple of {dp} copies", copies, "change batch or data_parallel"
            )
        for micro_batch in spec.micro_batch if not rest else []:
            if share % micro_batch:
                reason = f"micro_batch {micro_batch} doesn't divide the {share} sequences of a copy"
                yield Unusable(reason, copies, "choose one that does")


def _accumulation(finetune: Finetune, variant: Variant) -> int:
    return finetune.spec.batch // (variant.dp * variant.micro_batch)


def _best(
    finetune: Finetune, offer: Offer, group: list[Variant], activations_of: ActivationsOf, held: HeldOf
) -> Way | Unusable | None:
    """Return the first of a variant's micro-batches that fits, or the last with what it lacks.

    Returns why none can run on the offer, None where the offer just hasn't the GPUs.
    """
    if not _has_gpus(offer, group[0]):
        return None
    against = _reason_against(finetune, offer, group[0])
    if against is not None:
        return Unusable(against[0], f"{offer.name}, {group[0].name}", against[1])
    gpu = resolve_gpu(offer.gpu)
    for variant in group:
        placed = _placed(finetune, offer, variant)
        found = held(variant, fixed_bytes(gpu, finetune.dtype))
        if not isinstance(placed, Unusable) and peak(found).device_bytes <= gpu.memory_bytes:
            break
    if isinstance(placed, Unusable):
        return placed
    return _way(finetune, offer, variant, activations_of(variant), placed, found)


def _has_gpus(offer: Offer, variant: Variant) -> bool:
    """Tell whether a machine, or whole machines, have a variant's GPUs, each group of `tp` on one of them."""
    if variant.gpus <= offer.gpu_count:
        return True
    return variant.gpus % offer.gpu_count == 0 and variant.tp <= offer.gpu_count


def _reason_against(finetune: Finetune, offer: Offer, variant: Variant) -> tuple[str, str] | None:
    """Return why a variant can't run on an offer, whatever its memory, and what to do; None where it can."""
    gpu = resolve_gpu(offer.gpu)
    if finetune.dtype not in gpu.flops_per_s and not gpu.is_cpu:
        able = " or ".join(dtype for dtype in TRAINED_DTYPES if dtype in gpu.flops_per_s)
        return f"{gpu.name} doesn't compute in {finetune.dtype}", f"set dtype to {able}, or allow other GPUs"
    if variant.offload is not Offload.NONE:
        if finetune.dtype is DType.FP32:
            return "offloading keeps weights in 16 bits, and dtype is fp32", "set dtype to bf16 or fp16"
        if variant.tp > 1:
            return "offloading with tensor parallelism isn't modelled", "allow offload: none"
    if variant.gpus <= offer.gpu_count:
        return None
    if finetune.spec.host.network_gb_s is None:
        return "the network between machines isn't known", "give host.network_gb_s"
    if variant.offload is not Offload.NONE:
        return "offloading over several machines isn't modelled", "allow offload: none"
    return None


def _placed(finetune: Finetune, offer: Offer, variant: Variant) -> TierPlacement | Unusable | None:
    """Return where an offloaded variant's tensors lie on the machine's host, None where all is on GPUs."""
    if variant.offload is Offload.NONE:
        return None
    tiers = finetune.host_tiers(offer, variant.offload)
    if isinstance(tiers, HostUnknown):
        return Unusable(tiers.reason, f"{offer.name}, {variant.name}", tiers.fix)
    tensors = host_tensors(training_of(finetune), variant)
    try:
        return latency_first(tensors, tiers)
    except Infeasible as error:
        return _host_short(offer, variant, tensors, tiers, error)


def _way(
    finetune: Finetune,
    offer: Offer,
    variant: Variant,
    activations: Activations,
    placement: TierPlacement | None,
    found: tuple[Moment, ...],
) -> Way:
    training, gpu = training_of(finetune), resolve_gpu(offer.gpu)
    machines = max(1, variant.gpus // offer.gpu_count)
    accumulation = _accumulation(finetune, variant)
    network = finetune.spec.host.network_gb_s
    hardware = hardware_of(gpu, finetune.dtype, machines, network * GIGA if network else None)
    step = optimizer_step(training, variant, activations, hardware, accumulation, placement)
    return Way(
        offer=offer,
        machines=machines,
        variant=variant,
        accumulation=accumulation,
        moments=found,
        placement=placement,
        step=step,
        steps=finetune.spec.total_steps,
        activations=activations,
        short_bytes=max(0.0, peak(found).device_bytes - gpu.memory_bytes),
    )


def _host_short(
    offer: Offer,
    variant: Variant,
    tensors: Sequence[TrainingTensor],
    tiers: Sequence[MemoryTier],
    error: Infeasible,
) -> Unusable:
    """Return what a host lacks for a variant's tensors, or which tier the rule would overfill."""
    short = sum(tensor.size_bytes for tensor in tensors) - sum(tier.capacity_bytes for tier in tiers)
    lacks = f"{short / GIB:.1f} GiB" if short > 0 else error.why
    way = f"{variant.name}, micro-batch {variant.micro_batch} on {offer.name}: {lacks}"
    return Unusable(f"too little host memory beside {offer.gpu}", way, short_bytes=max(0.0, short))


def training_of(finetune: Finetune) -> Training:
    """Return the model as the spec trains it."""
    spec = finetune.spec
    return Training(
        finetune.model,
        finetune.linears,
        finetune.targets,
        finetune.dtype,
        spec.precision == "mixed",
        spec.context,
        spec.freeze_share,
    )


def fixed_bytes(gpu: GpuType, dtype: DType) -> float:
    """Return what a GPU's driver, libraries and allocator hold beside tensors (assumed); 0 on a CPU."""
    return 0.0 if gpu.is_cpu else efficiency_of(gpu, dtype).workspace_bytes


def runnable(ways: Iterable[Way]) -> Iterator[Way]:
    """Yield the ways that lack nothing."""
    return (way for way in ways if not way.short_bytes)
