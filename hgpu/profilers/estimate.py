"""Step times from a roofline, where nothing can be measured.

Each step takes the longer of its arithmetic and its memory traffic, at stated fractions of the
data sheet's peaks, plus a fixed host time; tensor parallelism adds two all-reduces a layer
(ring algorithm). The fractions are assumptions, not measurements: they are kept in the profile
and every sample says `estimated`. Williams et al., "Roofline", CACM 2009.
"""

from dataclasses import asdict, dataclass, field

from hgpu.core.errors import Infeasible
from hgpu.core.experts import ExpertCache
from hgpu.core.gpu import DType, GpuType
from hgpu.core.model import ModelSpec
from hgpu.core.operating_point import OperatingPoint
from hgpu.core.provenance import Provenance
from hgpu.core.step import StepBatch
from hgpu.profilers.design import batches, design
from hgpu.profilers.efficiency import Efficiency, efficiency_of
from hgpu.profilers.host_link import HostLink
from hgpu.profilers.result import ProfileResult
from hgpu.profilers.samples import Sample

SETUP_TOKENS = 131_072
_SIXTEEN_BITS = (DType.BF16, DType.FP16, DType.FP32)


@dataclass(frozen=True, slots=True)
class Roofline:
    """A model on `tp` devices of one type; with `experts`, as its engine in mode `offload` computes.

    What it copies isn't in its times: that depends on the routing (`hgpu.latency.offload`).
    """

    model: ModelSpec
    gpu: GpuType
    tp: int
    efficiency: Efficiency
    experts: ExpertCache | None = None
    link: HostLink = field(default_factory=HostLink)

    @property
    def flops_per_s(self) -> float:
        """Peak of the format that the matrix multiplications run in, over all devices."""
        return self._peak(self.model.weight_dtype, *_SIXTEEN_BITS)  # weight-only formats compute in 16 bits

    @property
    def attention_flops_per_s(self) -> float:
        """Peak of the format that attention runs in, 16 bits where the hardware has it."""
        return self._peak(*_SIXTEEN_BITS)

    def _peak(self, *formats: DType) -> float:
        there = self.gpu.flops_per_s
        return there[next(f for f in formats if f in there)] * self.tp

    @property
    def bandwidth_bytes_per_s(self) -> float:
        """Peak memory bandwidth over all devices."""
        return self.gpu.memory_bandwidth_bytes_per_s * self.tp

    def step_s(self, batch: StepBatch) -> float:
        """Return the estimated seconds of one step."""
        eff, model = self.efficiency, self.model
        work_s = batch.tokens * model.flops_per_token / (eff.compute * self.flops_per_s)
        read_s = model.step_weight_bytes(batch.tokens) / (eff.bandwidth * self.bandwidth_bytes_per_s)
        layers = model.moe_layers if self.experts else 0
        return (
            eff.step_overhead_s
            + layers * self.link.layer_host_s
            + eff.sequence_overhead_s * batch.seqs
            + max(work_s, read_s)
            + self._attention_s(batch)
            + self._communication_s(batch)
        )

    def kv_capacity_tokens(self, memory_utilization: float) -> int:
        """Return the tokens that fit beside weights and workspace; may be negative."""
        usable = self.gpu.memory_bytes * memory_utilization - self.efficiency.workspace_bytes
        free = usable * self.tp - self.model.resident_bytes(self.experts)
        return int(free // self.model.kv_bytes(1))

    def _attention_s(self, batch: StepBatch) -> float:
        eff, model = self.efficiency, self.model
        pair_flops = model.attention_flops_per_pair + model.window_attention_flops_per_pair
        work_s = batch.prefill_pairs * pair_flops / (eff.attention_compute * self.attention_flops_per_s)
        context = batch.decode_context_tokens + batch.prefill_context_tokens
        seqs = max(batch.seqs, 1.0)
        read_bytes = seqs * model.kv_bytes(context / seqs)
        return work_s + read_bytes / (eff.kv_bandwidth * self.bandwidth_bytes_per_s)

    def _communication_s(self, batch: StepBatch) -> float:
        if self.tp == 1:
            return 0.0
        eff, model = self.efficiency, self.model
        bytes_moved = 2 * (self.tp - 1) / self.tp * batch.tokens * model.hidden_size * 2
        each_s = eff.allreduce_latency_s + bytes_moved / (eff.link * self.gpu.peer_link_bytes_per_s)
        return 2 * model.layers * each_s


def estimate(
    model: ModelSpec, gpu: GpuType, point: OperatingPoint, efficiency: Efficiency | None = None
) -> ProfileResult:
    """Return a computed profile of `model` at `point`.

    Raises Infeasible where the weights and one token of KV cache don't fit the memory.
    """
    cached = model.cached_in(point.engine.kv_cache_dtype)
    efficiency = efficiency or efficiency_of(gpu, model.weight_dtype)
    roofline = Roofline(cached, gpu, point.tp, efficiency, point.experts)
    capacity = checked_capacity(roofline, point)
    samples = tuple(
        Sample(script.name, batch, roofline.step_s(batch))
        for script in design(point.engine, min(SETUP_TOKENS, capacity))
        for batch in batches(script, point.engine.max_num_batched_tokens)
    )
    assumptions = asdict(roofline.efficiency) | (asdict(roofline.link) if point.experts else {})
    return ProfileResult("estimate", Provenance.ESTIMATED, samples, capacity, assumptions=assumptions)


def checked_capacity(roofline: Roofline, point: OperatingPoint) -> int:
    """Return the tokens that the KV cache holds at an operating point.

    Raises Infeasible where vLLM can't split the model's heads over its ranks, or the weights leave no room.
    """
    model = roofline.model
    if not model.splits_over(point.tp):
        raise Infeasible(
            f"{model.name} can't run as {point.name}",
            f"{point.tp} ranks can't share its {model.attention_heads} attention heads and"
            f" {model.kv_heads} KV heads: vLLM splits neither",
            "use a tensor parallel degree that divides both",
        )
    capacity = roofline.kv_capacity_tokens(point.engine.gpu_memory_utilization)
    if capacity <= 0:
        needed = roofline.model.resident_bytes(point.experts) / 2**30
        there = roofline.gpu.memory_bytes * point.tp / 2**30
        what = "its weights take" if point.experts is None else "its weights beside offloaded experts take"
        smaller = "" if point.experts is None else "a smaller part of the experts, "
        raise Infeasible(
            f"{roofline.model.name} doesn't fit {point.name}",
            f"{what} {needed:.1f} GiB of {there:.1f} GiB, and the KV cache and workspace need room",
            f"use {smaller}a larger tensor parallel degree, a larger GPU or a smaller weight format",
        )
    return capacity
