"""What the expert cache can't serve, found before an engine serves: refused, never half-done."""

from typing import Any

from hgpu.core.errors import InputError
from hgpu.latency.expert_hints import ExpertHints

BACKENDS = ("CPU", "TRITON")


def require_engine(config: Any) -> None:
    """Refuse a vLLM configuration that the cache can't serve. Raises InputError that names what and why."""
    for asked, what, why, fix in _refusals(config):
        if asked:
            raise InputError(f"the expert cache can't serve {what}", why, fix)


def require_layer(moe: Any, method: Any) -> None:
    """Refuse a layer whose kernel the cache can't feed. Raises InputError."""
    if method.is_monolithic:
        raise InputError(
            f"the expert cache can't feed the kernel of backend {method.unquantized_backend.value}",
            "it chooses the experts itself, so that nobody can bring them before",
            "give --moe-backend triton",
        )
    if method.unquantized_backend.name not in BACKENDS:
        raise InputError(
            f"the expert cache can't feed the kernels of backend {method.unquantized_backend.value}",
            f"those of {' and '.join(BACKENDS)} are known to take an expert by its place",
            "give --moe-backend triton",
        )
    if moe.has_bias:
        raise InputError(
            "the expert cache can't serve experts with a bias",
            "their kernels take the bias by the expert's number, not by its place",
            "leave out hgpu_experts for this model",
        )


def require_kernel(kernel: Any) -> None:
    """Refuse a kernel that turned out otherwise when the weights were there. Raises InputError."""
    if getattr(kernel.fused_experts, "_use_zentorch", False):
        raise InputError("the expert cache can't feed zentorch's kernel", "it has a layout of its own")


def require_hints(hints: ExpertHints | None, layer: int, experts: int, per_token: int) -> None:
    """Refuse hints of a model of another shape. Raises InputError."""
    if hints is None:
        return
    layers, known = hints.ranking.shape
    if known != experts or layer >= layers:
        raise InputError(
            f"the hints are of {layers} layers of {known} experts",
            f"layer {layer} of this model has {experts}, of which a token takes {per_token}",
            "record a routing trace of this model",
        )


def _refusals(config: Any) -> list[tuple[bool, str, str, str]]:
    parallel, model = config.parallel_config, config.model_config
    one = "it fills the slots of one device, in one process"
    leave_out = "leave out hgpu_experts"
    return [
        (not model.is_moe, "a model without experts", "there is nothing to cache", leave_out),
        (
            parallel.enable_eplb,
            "EPLB",
            "that moves experts between devices while they are served",
            "leave out --enable-eplb",
        ),
        (
            parallel.enable_expert_parallel,
            "expert parallelism",
            "that spreads the experts over devices by a map of its own",
            "leave out --enable-expert-parallel",
        ),
        (parallel.world_size > 1, "tensor or pipeline parallelism", one, "give one device"),
        (parallel.data_parallel_size > 1, "data parallelism", one, "run an engine for each replica"),
        (
            config.quant_config is not None,
            f"quantisation '{model.quantization}'",
            "its kernels have layouts and scales of their own; only unquantised experts are cached",
            "serve the model in bfloat16",
        ),
        (
            not model.enforce_eager,
            "compiled models and CUDA graphs",
            "the host looks at each step's routing, which a graph can't",
            "give --enforce-eager",
        ),
        (config.lora_config is not None, "LoRA adapters", "they wrap the experts' kernels", leave_out),
        (
            config.speculative_config is not None,
            "speculative decoding",
            "a draft model may have experts of its own; nobody has tried it",
            "leave out --speculative-config",
        ),
        (
            model.enable_sleep_mode,
            "sleep mode",
            "it throws the slots' contents away",
            "leave out --enable-sleep-mode",
        ),
        (
            model.is_attention_free,
            "models without attention",
            "their steps can't be told from trials",
            leave_out,
        ),
    ]
