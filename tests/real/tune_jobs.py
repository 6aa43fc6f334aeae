"""A fine-tune of a small model on the data beside it."""

from pathlib import Path
from typing import Any

from hgpu.specs.finetune import Method
from hgpu.tuning.job import TuneJob


def small_job(folder: Path, **changes: Any) -> TuneJob:
    """The job on `folder`/model and `folder`/data.jsonl: four steps of LoRA, but for `changes`."""
    given: dict[str, Any] = {
        "model": str(folder / "model"),
        "dtype": None,
        "precision": "mixed",
        "method": Method.LORA,
        "rank": 4,
        "targets": ("q_proj", "v_proj"),
        "alpha": 8.0,
        "freeze_share": 0.3,
        "rank_allocation": "uniform",
        "context": 40,
        "batch": 4,
        "micro_batch": 4,
        "steps": 4,
        "checkpointing": False,
        "data": str(folder / "data.jsonl"),
        "learning_rate": 2e-2,
        "weight_decay": 0.0,
        "warmup_steps": 0,
        "seed": 0,
        "save_every_steps": 4,
    }
    return TuneJob(**{**given, **changes})
