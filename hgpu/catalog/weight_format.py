"""How many bits each part of a model is stored in: `torch_dtype`, `quantization_config`, an override.

- `torch_dtype` gives the activation format: embeddings, head, norms, router, KV cache;
- `quantization_config` gives the scheme: bits of one weight with its scales and zero points;
- its ignore lists say which of attention, dense MLP, shared and routed experts keep 16 bits.
"""

import fnmatch
import re
from collections.abc import Callable
from dataclasses import dataclass

from hgpu.catalog.config_fields import Config, field_error, flag, items, optional_count, section, text
from hgpu.core.errors import InputError
from hgpu.core.gpu import DType

QUANTIZATION = "quantization_config"

ACTIVATIONS = {
    "": DType.BF16,
    "auto": DType.BF16,
    "bfloat16": DType.BF16,
    "float16": DType.FP16,
    "half": DType.FP16,
    "float32": DType.BF16,
    "float": DType.BF16,
}


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """Bits per stored parameter of each part of the model, scales included."""

    dtype: DType
    activation: DType
    attention_bits: float
    mlp_bits: float
    shared_expert_bits: float
    expert_bits: float


@dataclass(frozen=True, slots=True)
class Scheme:
    """One quantised number format: its name and the bits of a weight with scales and zero points."""

    dtype: DType
    bits: float
    experts_only: bool = False


def weight_format(config: Config, name: str, layers: int, override: DType | None) -> WeightFormat:
    """Work out what each part is stored in; `override` replaces what the checkpoint holds.

    Without a `torch_dtype`, and for a float32 checkpoint, bf16 is taken: that is how vLLM's
    `--dtype auto` runs them. Ask for `DType.FP32` to have full precision.
    """
    if override is not None and override.bits >= 16:
        return _uniform(override)
    activation = activation_dtype(config, name)
    stored = _stored_scheme(config, name)
    if override is not None and (stored is None or stored.dtype != override):
        return _quantised(Scheme(override, OVERRIDE_BITS[override]), activation, [], layers, name)
    if stored is None:
        return _uniform(activation)
    return _quantised(stored, activation, _ignored(config, name), layers, name)


def activation_dtype(config: Config, name: str) -> DType:
    """Return the 16-bit format that the engine computes and caches in."""
    key = "dtype" if config.get("torch_dtype") is None else "torch_dtype"
    value = text(config, key, name).removeprefix("torch.")
    if value not in ACTIVATIONS:
        known = ", ".join(sorted(k for k in ACTIVATIONS if k))
        raise field_error(name, key, f"'{value}' is not one of {known}")
    return ACTIVATIONS[value]


def _uniform(dtype: DType) -> WeightFormat:
    bits = float(dtype.bits)
    return WeightFormat(dtype, dtype, bits, bits, bits, bits)


def _quantised(scheme: Scheme, activation: DType, ignored: list[str], layers: int, name: str) -> WeightFormat:
    # A layer in the middle stands for all: lists that name every layer then work like patterns.
    layer = f"model.layers.{layers // 2}"

    def bits(module: str) -> float:
        kept = scheme.experts_only or any(_matches(entry, f"{layer}.{module}", name) for entry in ignored)
        return float(activation.bits) if kept else scheme.bits

    return WeightFormat(
        dtype=scheme.dtype,
        activation=activation,
        attention_bits=bits("self_attn.q_proj"),
        mlp_bits=bits("mlp.gate_proj"),
        shared_expert_bits=bits("mlp.shared_experts.gate_proj"),
        expert_bits=scheme.bits if scheme.experts_only else bits("mlp.experts.0.gate_proj"),
    )


def _matches(entry: str, module: str, name: str) -> bool:
    """Tell if an ignore entry (`re:` regex, glob, or part of a dotted name) covers a module."""
    if entry.startswith("re:"):
        try:
            return re.match(entry[3:], module) is not None
        except re.error as error:
            raise field_error(name, QUANTIZATION, f"'{entry}' is no regular expression: {error}") from error
    if "*" in entry:
        return fnmatch.fnmatchcase(module, entry) or fnmatch.fnmatchcase(module, f"{entry}.*")
    return f".{entry}." in f".{module}."


def _ignored(config: Config, name: str) -> list[str]:
    quantization = section(config, QUANTIZATION, name)
    keys = ("ignore", "modules_to_not_convert", "ignored_layers", "exclude_modules", "llm_int8_skip_modules")
    return [entry for key in keys for entry in items(quantization, key, name, str)]


def _stored_scheme(config: Config, name: str) -> Scheme | None:
    quantization = section(config, QUANTIZATION, name) or section(config, "compression_config", name)
    if not quantization:
        return None
    method = text(quantization, "quant_method", name).lower().replace("_", "-")
    if method not in SCHEMES:
        raise InputError(
            f"config.json of '{name}': unknown quantization method '{method}'",
            f"known: {', '.join(sorted(SCHEMES))}",
            "pass a dtype to say how the weights are stored, or use an unquantised checkpoint",
        )
    return SCHEMES[method](quantization, name)


def _overhead_bits(scale_bits: float, group: int) -> float:
    """Spread the scale of a group over its weights; groups as long as a row weigh nothing."""
    return scale_bits / group if group > 0 else 0.0


def _integer(bits: int, name: str) -> DType:
    if bits not in (3, 4, 8):
        raise field_error(name, QUANTIZATION, f"{bits}-bit integer weights are not supported")
    return DType.INT8 if bits == 8 else DType.INT4


def _fp8(quantization: Config, name: str) -> Scheme:
    block = items(quantization, "weight_block_size", name, int)
    area = block[0] * block[1] if len(block) == 2 else 0
    return Scheme(DType.FP8, 8 + _overhead_bits(32, area))


def _grouped_integer(quantization: Config, name: str) -> Scheme:
    """AWQ and GPTQ: packed integers, a 16-bit scale and a packed zero point for each group."""
    bits = optional_count(quantization, "bits", name, default=4)
    group = optional_count(quantization, "group_size", name, default=128, minimum=-1)
    return Scheme(_integer(bits, name), bits + _overhead_bits(16 + bits, group))


def _compressed_tensors(quantization: Config, name: str) -> Scheme:
    groups = section(quantization, "config_groups", name)
    schemes = [_compressed_group(section(groups, key, name), name) for key in sorted(groups)]
    if not schemes:
        raise field_error(name, "config_groups", "it holds no group of quantised weights")
    return max(schemes, key=lambda scheme: scheme.bits)


def _compressed_group(group: Config, name: str) -> Scheme:
    weights = section(group, "weights", name)
    bits = optional_count(weights, "num_bits", name, default=8)
    length = optional_count(weights, "group_size", name, default=0, minimum=-1)
    if text(weights, "type", name) == "float":
        if bits not in (4, 8):
            raise field_error(name, "num_bits", f"{bits}-bit floating-point weights are not supported")
        return Scheme(DType.FP8 if bits == 8 else DType.FP4, bits + _overhead_bits(8, length))
    zero_bits = 0 if flag(weights, "symmetric", name, default=True) else bits
    return Scheme(_integer(bits, name), bits + _overhead_bits(16 + zero_bits, length))


def _bitsandbytes(quantization: Config, name: str) -> Scheme:
    """4-bit NF4 or FP4 in blocks of 64 with float32 scales, themselves in 8 bits if double-quantised."""
    if not flag(quantization, "load_in_4bit", name, default=False):
        return Scheme(DType.INT8, 8.0)
    double = flag(quantization, "bnb_4bit_use_double_quant", name, default=False)
    return Scheme(DType.INT4, 4 + (8 / 64 + 32 / (64 * 256) if double else 32 / 64))


def _mxfp4(quantization: Config, name: str) -> Scheme:
    """4-bit floats in blocks of 32 with an 8-bit shared exponent; attention is left alone."""
    return Scheme(DType.FP4, 4 + 8 / 32, experts_only=True)


def _modelopt(quantization: Config, name: str) -> Scheme:
    algorithm = text(quantization, "quant_algo", name).upper()
    known = {"FP8": Scheme(DType.FP8, 8.0), "NVFP4": Scheme(DType.FP4, 4 + 8 / 16)}
    if algorithm not in known:
        raise field_error(name, "quant_algo", f"'{algorithm}' is not one of {', '.join(sorted(known))}")
    return known[algorithm]


SCHEMES: dict[str, Callable[[Config, str], Scheme]] = {
    "awq": _grouped_integer,
    "bitsandbytes": _bitsandbytes,
    "compressed-tensors": _compressed_tensors,
    "fbgemm-fp8": _fp8,
    "fp8": _fp8,
    "gptq": _grouped_integer,
    "modelopt": _modelopt,
    "mxfp4": _mxfp4,
}

# What an override costs a weight: per-channel scales weigh nothing, INT4 as AWQ in groups of 128,
# FP4 as NVFP4 in blocks of 16.
OVERRIDE_BITS = {DType.FP8: 8.0, DType.INT8: 8.0, DType.INT4: 4 + 20 / 128, DType.FP4: 4 + 8 / 16}
