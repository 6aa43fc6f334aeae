"""The time of an optimizer step, and what bounds it.

A roofline at stated fractions of the data sheet's peaks (`hgpu/profilers/efficiency.py`), estimated and
nowhere measured on a GPU. For a pass over t tokens on a copy of the model, with P parameters, T of them
trained:

    forward    2P·t + attention;  backward: as much for the activations' gradients, and 2T·t for the weights';
               with checkpointing the forward pass once more
    GPU memory activations are written and read once forward, and twice as often backward: eager operators
               don't overlap that with matrix products, so it adds to them
    links      tensor parallelism: two all-reduces a layer and pass; ZeRO-3: the weights once forward, once
               backward, and gradients once, hidden behind compute where shorter; plain copies: one all-reduce
               of the gradients an optimizer step;
               between machines over their network, where that is slower
    host       offloaded tensors by `hgpu/latency/offloaded_step.py`, hidden behind compute where shorter
    optimizer  28 bytes a trained parameter, and 2 for a 16-bit copy, at the bandwidth of where they lie
"""

from collections.abc import Mapping
from dataclasses import dataclass

from hgpu.core.gpu import DType, GpuType
from hgpu.core.placement import TierPlacement
from hgpu.core.training import Activations, Method, Offload, Sharding, Variant
from hgpu.latency.offloaded_step import Devices, optimizer_tier_s, pass_terms
from hgpu.latency.training_memory import Training, host_shape
from hgpu.profilers.efficiency import Efficiency, efficiency_of

COMPUTE, GPU_MEMORY, PEER, NETWORK, HOST_LINK, OPTIMIZER = (
    "compute",
    "GPU memory",
    "peer link",
    "network",
    "host link",
    "optimizer",
)
OPTIMIZER_BYTES = 28.0
COPY_BYTES = 2.0


@dataclass(frozen=True, slots=True)
class Step:
    """Seconds of an optimizer step by what they are spent on; they follow one another and add up."""

    seconds_by_bound: Mapping[str, float]

    @property
    def total_s(self) -> float:
        """Seconds of the step."""
        return sum(self.seconds_by_bound.values())

    @property
    def bound(self) -> str:
        """What takes most of it."""
        return max(self.seconds_by_bound, key=lambda name: self.seconds_by_bound[name])


@dataclass(frozen=True, slots=True)
class Hardware:
    """GPUs of one type; `peer_bytes_per_s` joins those of a machine, `network_bytes_per_s` machines."""

    gpu: GpuType
    efficiency: Efficiency
    flops_per_s: float
    peer_bytes_per_s: float
    network_bytes_per_s: float | None

    @property
    def memory_bytes_per_s(self) -> float:
        """Bytes/s of a GPU's memory that are reached."""
        return self.efficiency.bandwidth * self.gpu.memory_bandwidth_bytes_per_s

    def between_copies(self, tp: int) -> tuple[str, float]:
        """Return the link that bounds copies, and its bytes/s for each of a copy's `tp` parts.

        The rings of all parts go through each machine, and share its network.
        """
        links = {PEER: self.peer_bytes_per_s}
        if self.network_bytes_per_s is not None:
            links[NETWORK] = self.network_bytes_per_s / tp
        return min(links.items(), key=lambda row: row[1])


def hardware_of(gpu: GpuType, dtype: DType, machines: int, network_bytes_per_s: float | None) -> Hardware:
    """Return what GPUs reach; copies on several machines are joined by the slower of link and network.

    A GPU without the format computes in fp32 (`peak_flops`).
    """
    efficiency = efficiency_of(gpu, dtype)
    peer = efficiency.link * gpu.peer_link_bytes_per_s
    network = (network_bytes_per_s or 0.0) if machines > 1 else None
    return Hardware(gpu, efficiency, efficiency.compute * peak_flops(gpu, dtype), peer, network)


def peak_flops(gpu: GpuType, dtype: DType) -> float:
    """Return the peak rate of a format, that of fp32 where the hardware lacks it."""
    return gpu.flops_per_s.get(dtype, gpu.flops_per_s[DType.FP32])


def optimizer_step(
    training: Training,
    variant: Variant,
    activations: Activations,
    hardware: Hardware,
    accumulation: int,
    placement: TierPlacement | None = None,
) -> Step:
    """Return the time of an optimizer step of `accumulation` passes; an offloaded one has a placement."""
    found: dict[str, float] = {}
    for backward in (False, True):
        pass_s = _pass(training, variant, activations, hardware, placement, backward)
        for name, seconds in pass_s.items():
            found[name] = found.get(name, 0.0) + accumulation * seconds
    sums = _all_reduce(training, variant, hardware)
    for name, seconds in (sums | _optimizer(training, variant, hardware, placement)).items():
        found[name] = found.get(name, 0.0) + seconds
    return Step(found)


def _pass(
    training: Training,
    variant: Variant,
    activations: Activations,
    hardware: Hardware,
    placement: TierPlacement | None,
    backward: bool,
) -> dict[str, float]:
    """Return the seconds of one pass: what computes, and what of the links isn't hidden behind it."""
    compute_s = pass_flops(training, variant, backward) / (hardware.flops_per_s * variant.tp)
    moved = _moved_bytes(training, variant, activations, backward)
    seconds = {COMPUTE: compute_s, GPU_MEMORY: moved / hardware.memory_bytes_per_s}
    reduced_s = _layer_reduce_s(training, variant, hardware, backward)
    busy_s = sum(seconds.values()) + reduced_s
    behind = _links(training, variant, hardware, placement, backward)
    slowest = max(behind, key=lambda name: behind[name], default="")
    if slowest and behind[slowest] > busy_s:
        return {slowest: behind[slowest]}
    return seconds | ({PEER: reduced_s} if reduced_s else {})


def pass_flops(training: Training, variant: Variant, backward: bool) -> float:
    """Return the work of a pass over one copy's micro-batch."""
    model, context, batch = training.model, training.context, variant.micro_batch
    pairs = context * (context + 1) / 2
    attention = (model.attention_flops_per_pair + model.window_attention_flops_per_pair) * pairs
    forward = batch * (2.0 * model.active_params * context + attention)
    if not backward:
        return forward
    count = training.count(variant)
    trained = model.active_params if variant.method is Method.FULL else count.mean
    weights = batch * context * 2.0 * trained
    again = forward if variant.checkpointing else 0.0
    return forward + batch * attention + weights + again  # attention's gradients take twice its forward pass


def _moved_bytes(training: Training, variant: Variant, activations: Activations, backward: bool) -> float:
    """Return what the operators write and read of activations in a pass, on each GPU."""
    layer = activations.bottom.token if variant.checkpointing else activations.saved.layer_token
    tokens = variant.micro_batch * training.context
    whole = tokens * (training.model.layers * layer + training.model.vocab_size * activations.head.logit)
    times = (4.0 + (2.0 if variant.checkpointing else 0.0)) if backward else 2.0
    return times * whole / variant.tp


def _layer_reduce_s(training: Training, variant: Variant, hardware: Hardware, backward: bool) -> float:
    """Return the seconds of tensor parallelism's all-reduces (ring) in a pass."""
    if variant.tp == 1:
        return 0.0
    passes = 2 if backward and variant.checkpointing else 1
    size = variant.micro_batch * training.context * training.model.hidden_size * training.element_bytes
    each = 2 * (variant.tp - 1) / variant.tp * size / hardware.peer_bytes_per_s
    return passes * 2 * training.model.layers * (each + hardware.efficiency.allreduce_latency_s)


def _links(
    training: Training,
    variant: Variant,
    hardware: Hardware,
    placement: TierPlacement | None,
    backward: bool,
) -> dict[str, float]:
    """Return the seconds of what moves while a pass computes, by link or memory tier."""
    if placement is not None:
        devices = Devices(hardware.flops_per_s, hardware.efficiency.link * hardware.gpu.host_link_bytes_per_s)
        terms = pass_terms(placement, host_shape(training, variant), devices, backward=backward)
        return {HOST_LINK if name == "link" else name: s for name, s in terms.items() if name != COMPUTE}
    if variant.sharding is not Sharding.ZERO3 or variant.dp == 1:
        return {}
    weights = training.element_bytes * training.model.total_params / variant.tp
    states = training.states(variant)
    gradients = states.gradients * training.count(variant).peak / variant.tp if backward else 0.0
    name, bytes_per_s = hardware.between_copies(variant.tp)
    return {name: (variant.dp - 1) / variant.dp * (weights + gradients) / bytes_per_s}


def _all_reduce(training: Training, variant: Variant, hardware: Hardware) -> dict[str, float]:
    """Return the seconds in which plain copies sum their gradients, by the link that they take."""
    if variant.dp == 1 or variant.sharding is Sharding.ZERO3 or variant.offload is not Offload.NONE:
        return {}
    size = training.states(variant).gradients * training.count(variant).mean / variant.tp
    name, bytes_per_s = hardware.between_copies(variant.tp)
    return {name: 2 * (variant.dp - 1) / variant.dp * size / bytes_per_s}


def _optimizer(
    training: Training, variant: Variant, hardware: Hardware, placement: TierPlacement | None
) -> dict[str, float]:
    """Return the seconds of the optimizer step on each tier."""
    if placement is not None and variant.method is Method.FULL:
        seconds = optimizer_tier_s(placement)
        pairs = zip(placement.tiers, seconds, strict=True)
        return {f"{OPTIMIZER} on {tier.name}": s for tier, s in pairs if s}
    sharded = variant.sharding is Sharding.ZERO3 and variant.method is Method.FULL
    parts = variant.tp * (variant.dp if sharded else 1)
    copy = COPY_BYTES if training.element_bytes == 2 and variant.method is Method.FULL else 0.0
    size = training.count(variant).mean * (OPTIMIZER_BYTES + copy) / parts
    return {f"{OPTIMIZER} on GPU": size / hardware.memory_bytes_per_s}
