"""What the expert cache refuses, and what it does when a copy fails, in real vLLM engines in one process.

argv: the model's folder, a file of hints of another model, the result's file.
"""

import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # so that the engine can be seen from here

STEPS = 10_000


def engine(folder: str, rows: dict[str, Any], **options: Any) -> Any:
    """Return an engine with an expert cache."""
    from vllm import LLM

    from hgpu.runtime.vllm.expert_options import KEY

    given = {"enforce_eager": True, "dtype": "bfloat16", "max_model_len": 256, "max_num_seqs": 4} | options
    return LLM(folder, additional_config={KEY: rows}, enable_prefix_caching=False, **given)


def refused(folder: str, rows: dict[str, Any], **options: Any) -> str:
    """Return what an engine that can't be is refused with; nothing where it starts."""
    try:
        engine(folder, rows, **options)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def monolithic(folder: str, rows: dict[str, Any]) -> str:
    """Return what an engine is refused with whose kernel says that it chooses the experts itself."""
    from vllm.model_executor.layers.fused_moe.experts.cpu_moe import CPUUnquantizedExperts

    ask = CPUUnquantizedExperts.is_monolithic
    CPUUnquantizedExperts.is_monolithic = staticmethod(lambda: True)
    try:
        return refused(folder, rows)
    finally:
        CPUUnquantizedExperts.is_monolithic = ask


def main(folder: str, hints: str, to: str) -> None:
    """Write what happened."""
    lru = {"slots": 4, "policy": "lru", "wide": False}
    found: dict[str, Any] = {
        "refused": {
            "unknown": refused(folder, {"slot": 4}),
            "few": refused(folder, lru | {"slots": 1}),
            "hints": refused(folder, {"slots": 4, "hints": hints}),
            "layers": refused(folder, lru | {"slots": [4, 4, 4]}),
            "compiled": refused(folder, lru, enforce_eager=False),
            "monolithic": monolithic(folder, lru),
        }
    }
    gc.collect()
    from vllm import SamplingParams

    from hgpu.runtime.vllm.expert_store import store_of

    llm = engine(folder, lru)
    runner = llm.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker.model_runner
    store = store_of(llm.llm_engine.vllm_config)
    assert store is not None
    runner._dummy_run(8)
    found["after_trial"] = [store.counters.groups, store.counters.copied_bytes]
    greedy = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
    asked = [{"prompt_token_ids": [7, 8, 9 + n]} for n in range(4)]
    found["tokens"] = [
        len(answer.outputs[0].token_ids) for answer in llm.generate(asked, greedy, use_tqdm=False)
    ]
    found["steps"] = many_steps(runner, store)
    found["reload"] = reload(runner)
    found["fault"] = fault(runner, store, lambda: llm.generate(asked, greedy, use_tqdm=False))
    Path(to).write_text(json.dumps(found))


def methods(runner: Any) -> list[tuple[Any, Any]]:
    """Return the cached layers' methods, and the layers."""
    from vllm.model_executor.layers.fused_moe.routed_experts import RoutedExperts

    layers = [module for module in runner.model.modules() if isinstance(module, RoutedExperts)]
    return [(layer.quant_method, layer) for layer in layers]


def many_steps(runner: Any, store: Any) -> dict[str, Any]:
    """Drive the real methods for many steps; compare some with vLLM's kernel on all experts."""
    import psutil
    import torch

    random = torch.Generator().manual_seed(0)
    layers = methods(runner)
    experts, k = layers[0][1].global_num_experts, layers[0][1].top_k
    addresses = [one.data_ptr() for layer in store.layers for one in layer.slots.tensors]
    resident = store.counters.resident_bytes
    before = 0
    different = 0
    for step in range(STEPS):
        x = torch.randn(1 + step % 3, layers[0][1].hidden_size, generator=random).bfloat16()
        chosen = torch.rand(len(x), experts, generator=random).topk(k)
        for method, layer in layers[step % 4 > 0 :]:  # the last layer ends a step
            given = {"x": x, "topk_weights": chosen.values.float(), "topk_ids": chosen.indices.int()}
            out = method.apply(layer=layer, shared_experts=None, shared_experts_input=None, **given)
            if step % 500 == 0:
                different += not torch.equal(out, stock(method, layer, **given))
        if step == STEPS // 10:
            before = psutil.Process().memory_info().rss
    return {
        "steps": store.counters.steps,
        "different": different,
        "moved": addresses != [one.data_ptr() for layer in store.layers for one in layer.slots.tensors],
        "resident_same": resident
        == store.counters.resident_bytes
        == sum(layer.slots.nbytes for layer in store.layers),
        "grown_bytes": psutil.Process().memory_info().rss - before,
    }


def stock(method: Any, layer: Any, x: Any, topk_weights: Any, topk_ids: Any) -> Any:
    """Return what vLLM's kernel says with all of a layer's experts."""
    return method.moe_kernel.apply(
        hidden_states=x,
        w1=layer.w13_weight,
        w2=layer.w2_weight,
        topk_weights=topk_weights,
        topk_ids=topk_ids,
        activation=layer.activation,
        global_num_experts=layer.global_num_experts,
        expert_map=None,
        apply_router_weight_on_input=layer.apply_router_weight_on_input,
    )


def reload(runner: Any) -> str:
    """Return what new weights are refused with."""
    method, layer = methods(runner)[0]
    try:
        method.process_weights_after_loading(layer)
    except Exception as error:
        return str(error)
    return ""


def fault(runner: Any, store: Any, ask: Any) -> dict[str, Any]:
    """Let a copy fail in the middle of an expert, ask, and compute again when copies could be made again.

    vLLM's scheduler can't go on after a step that raised: its server ends there. So a method is called.
    """
    import torch

    from hgpu.runtime.vllm.expert_copies import PlainCopies

    copy, calls = PlainCopies.copy, [0]

    def failing(self: Any, pairs: Any) -> None:
        calls[0] += 1
        if calls[0] == 5:
            copy(self, list(pairs)[:1])  # a half of an expert
            raise OSError("the link is down")
        copy(self, pairs)

    PlainCopies.copy = failing  # type: ignore[method-assign]
    first, answers = caught(lambda: [one.outputs[0].token_ids for one in ask()])
    PlainCopies.copy = copy  # type: ignore[method-assign]
    claims, wrong = 0, 0
    for layer in store.layers:
        for place, expert in enumerate(layer.slots.held.tolist()):
            if expert >= 0:
                claims += 1
                same = zip(layer.slots.tensors, layer._host, strict=True)
                wrong += not all(bool((mine[place] == theirs[expert]).all()) for mine, theirs in same)
    method, layer = methods(runner)[0]
    x, weights = torch.zeros(1, layer.hidden_size, dtype=torch.bfloat16), torch.ones(1, layer.top_k)
    ids = torch.arange(layer.top_k, dtype=torch.int32)[None]
    second, more = caught(lambda: [method.apply(layer, x, weights, ids, None, None)])
    return {"first": first, "second": second, "answers": [*answers, *more], "claims": claims, "wrong": wrong}


def caught(action: Any) -> tuple[str, list[Any]]:
    """Return what an action failed with, or what it gave."""
    try:
        return "", [str(one) for one in action()]
    except Exception as error:
        return f"{type(error).__name__}: {error}", []


if __name__ == "__main__":
    main(*sys.argv[1:])
