"""Qwen2.5-7B as it may be trained, and variants to draw from."""

from dataclasses import replace

from hypothesis import strategies as st

from hgpu.catalog.linears import linears_of, targeted
from hgpu.catalog.models import load_config, load_model
from hgpu.core.gpu import DType
from hgpu.core.training import Activations, Method, Offload, Sharding, Variant
from hgpu.latency.training_activations import estimated_activations
from hgpu.latency.training_memory import Training, moments, peak

QWEN = "Qwen2.5-7B"
TARGETS = ("q_proj", "k_proj", "v_proj", "up_proj", "down_proj")
FULL = Variant(Method.FULL, 0, Offload.NONE, False, Sharding.NONE, 1, 1, 1)
LORA, LAMDA = replace(FULL, method=Method.LORA, rank=16), replace(FULL, method=Method.LAMDA, rank=16)


def training(context: int = 4096, dtype: DType = DType.BF16, mixed: bool = True) -> Training:
    linears = linears_of(load_config(QWEN), QWEN)
    return Training(load_model(QWEN, dtype), linears, targeted(linears, TARGETS), dtype, mixed, context)


def activations(asked: Training, variant: Variant) -> Activations:
    mixed = asked.mixed and variant.method is Method.FULL and asked.element_bytes == 2
    return estimated_activations(asked.model, asked.linears, asked.targets, asked.dtype, variant, mixed)


def peak_bytes(asked: Training, variant: Variant) -> float:
    return peak(moments(asked, variant, activations(asked, variant))).device_bytes


VARIANTS = st.builds(
    Variant,
    st.sampled_from(Method),
    st.sampled_from([8, 32]),
    st.sampled_from([Offload.NONE, Offload.ZERO3]),
    st.booleans(),
    st.sampled_from(Sharding),
    st.sampled_from([1, 2, 4]),
    st.just(1),
    st.sampled_from([1, 2, 8]),
).map(lambda v: replace(v, rank=0) if v.method is Method.FULL else v)
