"""Activations measured on small copies hold for larger ones."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")
from typing import Any

from hgpu.catalog.models import load_config
from hgpu.core.gpu import DType
from hgpu.profilers.activations import QUANTITIES, Asked, build, fitted, measure_pass, small_runs
from hgpu.profilers.shrunk import shrunk

pytestmark = pytest.mark.vllm
TARGETS = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]


def lora(model: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(r=16, target_modules=TARGETS))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("adapt", [None, lora], ids=["full", "lora"])
def test_the_terms_predict_a_copy_that_was_not_measured(adapt: Any, checkpointing: bool) -> None:
    """Three times the width, twice the depth and other lengths than those of the fit."""
    asked = Asked(load_config("Qwen2.5-7B"), "Qwen2.5-7B", DType.BF16, checkpointing, adapt=adapt)
    runs = list(small_runs(asked))
    small = shrunk(asked.config, asked.name, 24, 4, 0.9)
    actual = measure_pass(build(small, asked), small, 2, 150)
    for name in QUANTITIES:
        terms, error = fitted(runs, name, small.factor)
        assert error < 1e-4
        assert terms.bytes(4, 2, 150, small.vocab) == pytest.approx(actual[name], rel=1e-3), name
