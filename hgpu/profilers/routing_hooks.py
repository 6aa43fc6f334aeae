"""What a vLLM engine in this process routes where: its MoE layers and its scheduler watched, never changed.

vLLM can return routed experts with a request (`enable_return_routed_experts`). 0.32 does so only under its
second model runner, which needs Triton and so isn't there on CPUs, and it doesn't say what shared a step. So
what that option sets is set here: the routers' capture callback. Beside it three things are seen: the
scheduler's batches, the model's inputs, and the hidden states that come to each MoE layer. These are shown to
the next layer's router too, for what it says of them is what a prefetch by the next gate fetches.
"""

from functools import partial
from typing import Any

import numpy as np

from hgpu.core.errors import EngineError, InputError
from hgpu.profilers.routing_record import ABSENT, RoutingRecord
from hgpu.profilers.vllm_engine import scheduler_of

TESTED = "install vLLM 0.32"
_RUNNER = ("llm_engine", "engine_core", "engine_core", "model_executor", "driver_worker", "worker")


class RoutingRecorder:
    """Records an engine's steps, from its creation on, until `taken`. Requests are named by their numbers.

    `llm` is a `vllm.LLM` on one device that runs eagerly. Raises EngineError where this vLLM has no place for
    the hooks, InputError where the model has no experts.
    """

    def __init__(self, llm: Any) -> None:
        self.runner = _found(llm, (*_RUNNER, "model_runner"))
        model = self.runner.get_model()
        self.layers = moe_layers(model)
        self.foresees = all(gate is not None for _, gate in self.layers[1:])
        self._prompt_tokens: dict[str, int] = {}
        self._scheduled: dict[str, int] = {}
        self._inputs: tuple[Any, Any, list[str]] | None = None
        self._ids: dict[int, Any] = {}
        self._next: dict[int, Any] = {}
        self._columns: list[dict[str, Any]] = []
        self._watch_scheduler(scheduler_of(llm))
        model.register_forward_pre_hook(self._begin, with_kwargs=True)
        for number, (layer, _) in enumerate(self.layers):
            layer.router.set_capture_fn(partial(self._ids.__setitem__, number))
            if self.foresees and number + 1 < len(self.layers):
                layer.register_forward_pre_hook(partial(self._foresee, number + 1), with_kwargs=True)

    def end_step(self) -> None:
        """Keep what the step that has just run was seen to do; a step without tokens leaves nothing."""
        if self._inputs is None:
            return
        tokens, positions, names = self._inputs
        counts = [self._scheduled[name] for name in names]
        total = sum(counts)
        position = _numpy(positions)[:total]
        prompt_tokens = np.repeat([self._prompt_tokens[name] for name in names], counts)
        columns = {
            "ids": np.stack([_numpy(self._ids[n])[:total] for n in range(len(self.layers))], axis=1),
            "step": np.full(total, len(self._columns)),
            "request": np.repeat([int(name.partition("-")[0]) for name in names], counts),
            "position": position,
            "token": _numpy(tokens)[:total],
            "prefill": position < prompt_tokens,
        }
        if self.foresees:
            first = np.full_like(columns["ids"][:, 0], ABSENT)
            later = [_numpy(self._next[n])[:total] for n in range(1, len(self.layers))]
            columns["next_gate"] = np.stack([first, *later], axis=1)
        self._columns.append(columns)
        self._inputs = None

    def taken(self) -> RoutingRecord:
        """Return what was recorded, and begin anew."""
        rows, self._columns = self._columns, []
        return RoutingRecord(**{name: np.concatenate([row[name] for row in rows]) for name in rows[0]})

    def _watch_scheduler(self, scheduler: Any) -> None:
        plain = scheduler.schedule

        def schedule(*args: Any, **kwargs: Any) -> Any:
            output = plain(*args, **kwargs)
            self._scheduled = dict(output.num_scheduled_tokens)
            self._prompt_tokens = {
                name: scheduler.requests[name].num_prompt_tokens for name in self._scheduled
            }
            return output

        scheduler.schedule = schedule

    def _begin(self, _: Any, args: Any, kwargs: Any) -> None:
        """Note what the model is called with, and whose tokens they are, in their order."""
        tokens, positions = kwargs.get("input_ids"), kwargs.get("positions")
        if tokens is None or positions is None or positions.dim() != 1:
            raise EngineError("this model's inputs aren't a row of token ids", "it can't be recorded", TESTED)
        names = [name for name in self.runner.input_batch.req_ids if name in self._scheduled]
        self._inputs = (tokens.clone(), positions.clone(), names)  # the engine's buffers are filled again

    def _foresee(self, number: int, _: Any, args: Any, kwargs: Any) -> None:
        """Let layer `number`'s router speak on the hidden states that the layer before it is given."""
        hidden = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        layer, gate = self.layers[number]
        said = gate(hidden)
        logits = said[0] if isinstance(said, tuple) else said
        self._next[number] = layer.router._compute_routing(hidden, logits, None)[1]


def moe_layers(model: Any) -> list[tuple[Any, Any]]:
    """Return a model's MoE layers in their order, each with the module that scores its experts, or None."""
    from vllm.model_executor.layers.fused_moe.layer import MoERunner
    from vllm.model_executor.layers.fused_moe.router.base_router import BaseRouter

    modules = dict(model.named_modules())
    found = [(name, module) for name, module in modules.items() if isinstance(module, MoERunner)]
    if not found:
        raise InputError(
            f"{type(model).__name__} has no layers with experts", fix="name a mixture of experts"
        )
    for name, layer in found:
        if layer._quant_method.is_monolithic or not isinstance(layer.router, BaseRouter):
            raise EngineError(
                f"the experts of {name} are chosen inside of their kernel",
                f"{type(layer._quant_method).__name__} shows no routing",
                "record on a CPU, or with another MoE backend",
            )
    found.sort(key=lambda row: row[1].layer_id)
    return [(layer, getattr(modules[name.rpartition(".")[0]], "gate", None)) for name, layer in found]


def _found(llm: Any, names: tuple[str, ...]) -> Any:
    found = llm
    for name in names:
        if not hasattr(found, name):
            lack = f"{type(found).__name__} has no '{name}'"
            raise EngineError("this vLLM's routing can't be seen", lack, TESTED)
        found = getattr(found, name)
    return found


def _numpy(tensor: Any) -> Any:
    return tensor.cpu().numpy()
