"""What hgpu's plugins need of a vLLM, found by looking and not by version."""

from typing import Any

from hgpu.core.errors import InputError

SCHEDULER_NEEDS = ("waiting", "running", "max_num_scheduled_tokens", "max_num_running_reqs", "vllm_config")
REQUEST_NEEDS = (
    "arrival_time",
    "num_computed_tokens",
    "num_output_placeholders",
    "num_output_tokens",
    "num_tokens",
    "spec_token_ids",
)
CONNECTOR_NEEDS = ("block_hashes", "num_prompt_tokens", "num_tokens")
METHOD_NEEDS = (
    "register_oot",
    "create_weights",
    "process_weights_after_loading",
    "apply",
    "is_monolithic",
    "unquantized_backend",
)
KERNEL_NEEDS = ("global_num_experts", "expert_map", "apply_router_weight_on_input", "activation")
RUNNER_NEEDS = ("gate", "router")
ROUTER_NEEDS = ("_compute_routing",)
TRIED = "0.32"


def missing_features() -> list[str]:
    """Return what this vLLM's scheduler and requests lack of what the phase scheduler reads or sets."""
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.request import Request

    needs = ((Scheduler, SCHEDULER_NEEDS), (Request, REQUEST_NEEDS))
    return [f"{kind.__name__}.{name}" for kind, names in needs for name in names if name not in _has(kind)]


def require_features() -> None:
    """Refuse a vLLM that the phase scheduler can't steer. Raises InputError with what is missing."""
    if missing := missing_features():
        import vllm

        raise InputError(
            f"the phase scheduler can't steer vLLM {vllm.__version__}",
            f"it has no {', '.join(missing)}",
            f"use a vLLM as {TRIED}, or leave out --scheduler-cls",
        )


def require_connector_features() -> None:
    """Refuse a vLLM whose requests FolderConnector can't read. Raises InputError with what is missing."""
    from vllm.v1.request import Request

    if missing := [name for name in CONNECTOR_NEEDS if name not in _has(Request)]:
        import vllm

        raise InputError(
            f"FolderConnector can't pass the KV cache of vLLM {vllm.__version__} on",
            f"its requests have no {', '.join(missing)}",
            f"use a vLLM as {TRIED}, or run one engine in the pair's place",
        )


def missing_expert_features() -> list[str]:
    """Return what this vLLM lacks of what the expert cache reads or overrides. Raises ImportError."""
    import vllm.config
    from vllm.model_executor.layers.fused_moe.modular_kernel import FusedMoEKernel
    from vllm.model_executor.layers.fused_moe.router.base_router import BaseRouter
    from vllm.model_executor.layers.fused_moe.runner.moe_runner import MoERunner
    from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import UnquantizedFusedMoEMethod
    from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

    needs = (
        (UnquantizedFusedMoEMethod, METHOD_NEEDS),
        (MoERunner, RUNNER_NEEDS),
        (BaseRouter, ROUTER_NEEDS),
        (VocabParallelEmbedding, ("register_oot",)),
    )
    missing = [f"{kind.__name__}.{name}" for kind, names in needs for name in names if name not in _has(kind)]
    known = getattr(FusedMoEKernel, "apply", None)
    taken = known.__code__.co_varnames if known is not None else ()
    missing += [f"FusedMoEKernel.apply({name})" for name in KERNEL_NEEDS if name not in taken]
    config = ("get_current_vllm_config_or_none",)
    return missing + [f"vllm.config.{name}" for name in config if not hasattr(vllm.config, name)]


def require_expert_features() -> None:
    """Refuse a vLLM that the expert cache can't stand in. Raises InputError with what is missing."""
    try:
        missing = missing_expert_features()
    except ImportError as error:
        missing = [str(error)]
    if missing:
        import vllm

        raise InputError(
            f"the expert cache can't be used in vLLM {vllm.__version__}",
            f"it has no {', '.join(missing)}",
            f"use a vLLM as {TRIED}, or leave out hgpu_experts",
        )


def require_config(config: Any, asynchronous: bool) -> None:
    """Refuse a configuration that another scheduler is needed for."""
    scheduling = config.scheduler_config
    if scheduling.async_scheduling and not asynchronous:
        raise InputError(
            "PhaseScheduler doesn't schedule asynchronously",
            "this engine has asynchronous scheduling on",
            "use hgpu.runtime.vllm.async_phase_scheduler.AsyncPhaseScheduler, or --no-async-scheduling",
        )
    if scheduling.policy != "fcfs":
        raise InputError(
            f"the phase scheduler doesn't know the policy '{scheduling.policy}'",
            "it has an order of its own, whose ageing bounds how long a prompt is overtaken",
            "leave out --scheduling-policy",
        )


def _has(kind: type) -> set[str]:
    """Return the names of a class and those that its constructor sets."""
    constructor: Any = kind.__init__  # type: ignore[misc]  # this class's own is meant
    return {*dir(kind), *constructor.__code__.co_names}
