"""The devices, models and lengths of the simulated ablation, and the shares of a static partition."""

from dataclasses import dataclass, replace
from functools import cache
from types import MappingProxyType

from hgpu.catalog.gpus import resolve_gpu
from hgpu.catalog.models import load_model
from hgpu.core.gpu import GpuType
from hgpu.core.operating_point import EngineOptions, OperatingPoint
from hgpu.core.step import LatencyModel, prefill_batch
from hgpu.latency.fit import fit
from hgpu.profilers.efficiency import efficiency_of
from hgpu.profilers.estimate import Roofline, estimate
from hgpu.simulator.defaults import default_engine
from hgpu.simulator.partitioned import Partition
from hgpu.workloads.lengths import LENGTHS, Component, LengthDistribution

BANDWIDTH_SATURATES = 0.5  # of the SMs draw all of the memory's bandwidth: an assumption, see the README
CONTEXT = 16_384


@dataclass(frozen=True, slots=True)
class Setting:
    """A model on a GPU type, the lengths that it is asked for, and the objectives."""

    gpu: str
    model: str
    lengths: str
    ttft_s: float
    tpot_s: float

    @property
    def name(self) -> str:
        return f"{self.model.split('/')[-1]} on {self.gpu}, {self.lengths}"


SETTINGS = (
    Setting("L20", "Qwen/Qwen2.5-3B", "arxiv", 5.0, 0.100),
    Setting("L20", "meta-llama/Llama-3.1-8B", "sharegpt 60 %, longdata 40 %", 10.0, 0.100),
    Setting("H200", "meta-llama/Llama-3.1-8B", "sharegpt 60 %, longdata 40 %", 2.0, 0.030),
)


def lengths_of(name: str) -> LengthDistribution:
    """Return the bundled lengths of a name, or Nexus's mixture of two of them."""
    if name in LENGTHS:
        return LENGTHS[name]
    short, long = LENGTHS["sharegpt"], LENGTHS["longdata"]
    parts = [
        Component(weight, part.input_tokens, part.output_tokens)
        for weight, source in ((0.6, short), (0.4, long))
        for part in source.components
    ]
    return LengthDistribution(name, "60/40 as in Nexus", f"{short.source}; {long.source}", tuple(parts))


@cache
def engine_of(setting: Setting) -> EngineOptions:
    """Return vLLM's defaults on the device."""
    return default_engine(load_model(setting.model), resolve_gpu(setting.gpu), 1, CONTEXT, 1)


@cache
def latency_of(setting: Setting) -> LatencyModel:
    """Return the step model of the whole device: the roofline's, fitted as `hgpu estimate` does."""
    return _fitted(setting, resolve_gpu(setting.gpu))


@cache
def partition_of(setting: Setting, prefill_share: float, compute_saturates: float = 1.0) -> Partition:
    """Return two lanes with the roofline of a part of the device each.

    Compute falls with the share below `compute_saturates`, bandwidth below `BANDWIDTH_SATURATES`. Beside a
    prompt step, decodes have what bandwidth a full one leaves: it reads the weights once.
    """
    gpu, model = resolve_gpu(setting.gpu), load_model(setting.model)
    prompts = part_of(gpu, prefill_share, compute_saturates)
    decodes = part_of(gpu, 1 - prefill_share, compute_saturates)
    roofline = Roofline(model, prompts, 1, efficiency_of(gpu, model.weight_dtype))
    full = prefill_batch(engine_of(setting).max_num_batched_tokens)
    read_s = model.step_weight_bytes(full.tokens) / gpu.memory_bandwidth_bytes_per_s
    return Partition(
        _fitted(setting, prompts).step,
        _fitted(setting, decodes).step,
        1 / (1 - read_s / roofline.step_s(full)),
    )


def part_of(gpu: GpuType, share: float, compute_saturates: float) -> GpuType:
    """Return what a share of the SMs reaches. The memory stays whole."""
    computed = min(1.0, share / compute_saturates)
    flops = {dtype: rate * computed for dtype, rate in gpu.flops_per_s.items()}
    drawn = min(1.0, share / BANDWIDTH_SATURATES)
    return replace(
        gpu,
        flops_per_s=MappingProxyType(flops),
        memory_bandwidth_bytes_per_s=gpu.memory_bandwidth_bytes_per_s * drawn,
    )


def _fitted(setting: Setting, gpu: GpuType) -> LatencyModel:
    model = load_model(setting.model)
    profile = estimate(model, gpu, OperatingPoint(setting.gpu, engine=engine_of(setting)))
    return fit(profile.samples, model, profile.kv_capacity_tokens, profile.provenance).latency
