"""A real fine-tune in a process of its own: some steps of `hgpu tune`'s loop, and the most they held."""

import json
import sys
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from hgpu.core.gpu import DType
from hgpu.core.training import Method
from hgpu.tuning.dataset import Rows, Sequences
from hgpu.tuning.job import TuneJob
from hgpu.tuning.loading import mixed
from hgpu.tuning.methods import adapt
from hgpu.tuning.peak_memory import held_bytes
from hgpu.tuning.train import train

STEPS = 3


def job_of(asked: dict[str, Any]) -> TuneJob:
    return TuneJob(
        model="small",
        dtype=DType(asked["dtype"]),
        precision=asked["precision"],
        method=Method(asked["method"]),
        rank=asked["rank"],
        targets=tuple(asked["targets"]),
        alpha=2.0 * asked["rank"],
        freeze_share=1.0,
        rank_allocation="uniform",
        context=asked["context"],
        batch=asked["batch"],
        micro_batch=asked["batch"],
        steps=asked.get("steps", STEPS),
        checkpointing=asked["checkpointing"],
        data="",
        learning_rate=1e-4,
        weight_decay=0.0,
        warmup_steps=0,
        seed=0,
        save_every_steps=1000,
    )


def model_of(config: dict[str, Any], job: TuneJob) -> Any:
    fields = {key: value for key, value in config.items() if key != "model_type"}
    narrow = job.dtype is DType.BF16 and not mixed(job)
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(config["model_type"], **fields),
        dtype=torch.bfloat16 if narrow else torch.float32,
        attn_implementation="sdpa",
    )
    if job.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return adapt(model, job)[0]


def tune(config: dict[str, Any], job: TuneJob) -> int | None:
    """Train, and return the most that the process held."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, config["vocab_size"], (job.batch * 2, job.context), dtype=np.int64)
    rows = Rows(tokens, tokens)
    sequences = Sequences(rows, rows[:0], 0)
    return train(model_of(config, job), job, sequences, None, lambda *_: None).peak_bytes


def allocated(config: dict[str, Any], job: TuneJob) -> int:
    """Train under torch's memory profiler, and return the most that its CPU allocator had given out."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profiler:
        tune(config, job)
    live = peak = 0
    events = profiler.profiler.kineto_results.events()
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def main() -> None:
    asked = json.loads(sys.argv[1])
    torch.set_num_threads(asked["threads"])
    job = job_of(asked)
    # What importing, threads and the first step of anything take is there before the model.
    tiny = {
        **asked["config"],
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 1,
        "vocab_size": 99,
    }
    tune({**tiny, "head_dim": 8}, job_of({**asked, "batch": 1, "context": 16, "rank": 4}))
    before = held_bytes("cpu") or 0
    if asked["by"] == "allocator":
        print(json.dumps({"peak_bytes": allocated(asked["config"], job)}))
    else:
        print(json.dumps({"peak_bytes": (tune(asked["config"], job) or 0) - before}))


if __name__ == "__main__":
    main()
