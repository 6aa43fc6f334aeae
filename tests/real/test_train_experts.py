"""The example mixture of experts learns, and its balance loss says how even its loads are."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from hgpu.runtime.tiny_moe import moe_config

pytestmark = pytest.mark.vllm
FOLDER = Path(__file__).parents[2] / "benchmarks" / "experts"


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("train_experts", FOLDER / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("corpus", None)


def test_it_learns_and_its_loads_are_seen(train: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    for name, value in (("CONTEXT_TOKENS", 64), ("BATCH", 2), ("WARMUP_STEPS", 1)):
        monkeypatch.setattr(train, name, value)

    torch.manual_seed(0)
    config = moe_config(8, 2, 2, 64, 32, 512)
    model = train.Qwen3MoeForCausalLM(train.Qwen3MoeConfig(**config))
    tokens = torch.arange(40_000) % 50
    before = train._judged(model, tokens)
    train._train(model, tokens, steps=20, seed=0, balance_weight=0.001)
    after = train._judged(model, tokens)
    assert after["held_out_loss_nats"] < before["held_out_loss_nats"] - 1
    for layer in after["layers"]:
        assert 0 <= layer["smallest_load"] <= 1 <= layer["largest_load"] <= 8 / 2
        assert 0.25 <= layer["share_of_hottest_quarter"] <= 1
    same = torch.zeros(1, train.CONTEXT_TOKENS, dtype=torch.long)
    _, balance, _ = train._losses(model, same)
    assert 1 < balance <= 8 / 2


def test_held_out_files_are_not_trained_on(train: ModuleType) -> None:
    import corpus

    learnt, held_out = (set(corpus.sources(split)) for split in ("train", "held-out"))
    assert len(held_out) > 20
    assert len(learnt) > 5 * len(held_out)
    assert not learnt & held_out
