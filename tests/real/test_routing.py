"""Routes recorded from real vLLM are those of the model itself, computed once more without vLLM."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hgpu.catalog.gpus import resolve_gpu
from hgpu.core.experts import Link
from hgpu.core.gpu import DType
from hgpu.core.operating_point import EngineOptions, OperatingPoint
from hgpu.profilers.experts import RoutingJob, RoutingResult, record_routing
from hgpu.profilers.routing_record import RoutingRecord
from hgpu.runtime.tiny_moe import make_tiny_moe

pytestmark = pytest.mark.vllm
EXPERTS, PER_TOKEN, LAYERS, TOKENS = 16, 4, 3, 6
PROMPTS = (
    "import os\n",
    "def main(argv):\n    return",
    "class Reader:\n",
    "for row in rows:\n    print(row)",
)
ENGINE = EngineOptions(
    max_num_batched_tokens=128, max_num_seqs=4, max_model_len=256, enforce_eager=True, kv_cache_bytes=2**30
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_moe(tmp_path_factory.mktemp("moe"), EXPERTS, PER_TOKEN, LAYERS)


@pytest.fixture(scope="module")
def result(model: Path) -> RoutingResult:
    cpu = resolve_gpu("cpu-1core")
    point = OperatingPoint(cpu.name, dtype=DType.FP32, engine=ENGINE)
    job = RoutingJob(str(model), point, cpu, PROMPTS * 2, (1, 4), tokens=TOKENS, temperature=0.0, cores=(0,))
    return record_routing(job, lambda *_: None)


def sequences(record: RoutingRecord) -> dict[int, Any]:
    """The rows of each request in the order of their positions."""
    rows = {int(number): np.flatnonzero(record.request == number) for number in np.unique(record.request)}
    return {number: found[np.argsort(record.position[found])] for number, found in rows.items()}


def test_every_step_is_full_and_every_token_has_its_place(result: RoutingResult) -> None:
    assert result.experts == EXPERTS
    assert (result.copies.link, result.copies.expert_bytes) == (Link.HOST, 3 * 128 * 64 * 4)
    for batch, record in result.runs.items():
        for step in np.unique(record.step):
            assert len(np.unique(record.request[record.step == step])) == batch
        for rows in sequences(record).values():
            assert record.position[rows].tolist() == list(range(len(rows)))
            prompt = record.prefill[rows].sum()
            assert record.prefill[rows].tolist() == [True] * prompt + [False] * (len(rows) - prompt)
            assert len(rows) - prompt == TOKENS - 1


def test_routes_are_those_of_the_model_itself(model: Path, result: RoutingResult) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    itself = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    record, routed, foreseen = result.runs[4], [], []
    for places in sequences(record).values():
        ids, gate = computed(itself, record.token[places].tolist())
        routed.append(agreement(record.ids[places], ids))
        foreseen.append(agreement(record.next_gate[places, 1:], gate))
    assert min(np.mean(routed), np.mean(foreseen)) > 0.99
    assert (record.next_gate[:, 0] == -1).all()


def test_a_token_is_routed_alike_in_any_batch(result: RoutingResult) -> None:
    alone, together = result.runs[1], result.runs[4]
    for number, places in sequences(alone).items():
        others = sequences(together)[number]
        assert alone.token[places].tolist() == together.token[others].tolist()
        assert agreement(alone.ids[places], together.ids[others]) > 0.99


def agreement(one: Any, other: Any) -> float:
    """The part of the experts that both have, whatever their order."""
    return float((one[..., :, None] == other[..., None, :]).any(-1).mean())


def computed(model: Any, tokens: list[int]) -> tuple[Any, Any]:
    """Route a sequence with Hugging Face's model: each layer's experts, and what the next gate would say."""
    import torch

    seen: list[Any] = []
    hooks = [
        layer.mlp.register_forward_pre_hook(lambda _, args: seen.append(args[0][0]))
        for layer in model.model.layers
    ]
    with torch.no_grad():
        model(torch.tensor([tokens]))
        gates = [layer.mlp.gate.weight for layer in model.model.layers]
        ids = [chosen(hidden, gate) for hidden, gate in zip(seen, gates, strict=True)]
        foreseen = [chosen(hidden, gate) for hidden, gate in zip(seen, gates[1:], strict=False)]
    for hook in hooks:
        hook.remove()
    return torch.stack(ids, 1).numpy(), torch.stack(foreseen, 1).numpy()


def chosen(hidden: Any, gate: Any) -> Any:
    return (hidden @ gate.T).topk(PER_TOKEN).indices
