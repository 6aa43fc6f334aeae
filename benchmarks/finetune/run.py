"""Peak memory of real fine-tunes on the CPU, predicted and measured.

    python benchmarks/finetune/run.py [--contexts 128 512] [--batches 1 4] [--threads 1] [--ways 0 1]

Needs torch, transformers and peft (`pip install 'hgpu[tune]'`).
"""

import argparse
import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

from worker import job_of

from hgpu.catalog.linears import linears_of, targeted
from hgpu.catalog.model_config import parse_config
from hgpu.core.gpu import DType
from hgpu.core.training import Method, Offload, Sharding, Variant
from hgpu.latency.training_memory import Training, moments, peak
from hgpu.profilers.activations import Asked, measure_activations

CONFIG = {
    "model_type": "qwen2",
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 16_000,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
}
TARGETS = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]
RANK = 16
MIB = 2**20
# Blocks above 64 KiB are mapped one by one and given back when freed: what is resident is what is allocated.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}


def ways() -> list[dict[str, Any]]:
    plain = {"dtype": "fp32", "precision": "plain", "rank": RANK, "targets": TARGETS, "checkpointing": False}
    return [
        {**plain, "method": "full"},
        {**plain, "method": "lora"},
        {**plain, "method": "lamda"},
        {**plain, "method": "full", "checkpointing": True},
        {**plain, "method": "full", "dtype": "bf16", "precision": "mixed"},
        {**plain, "method": "lora", "dtype": "bf16"},
    ]


def predicted_bytes(way: dict[str, Any], activations: Any, batch: int, context: int) -> tuple[float, str]:
    dtype, method = DType(way["dtype"]), Method(way["method"])
    model = parse_config(CONFIG, "small", dtype)
    linears = linears_of(CONFIG, "small")
    training = Training(
        model, linears, targeted(linears, TARGETS), dtype, way["precision"] == "mixed", context, 1.0
    )
    rank = 0 if method is Method.FULL else way["rank"]
    variant = Variant(method, rank, Offload.NONE, way["checkpointing"], Sharding.NONE, batch, 1, 1)
    moment = peak(moments(training, variant, activations))
    return moment.device_bytes, moment.name


def measured_bytes(way: dict[str, Any], batch: int, context: int, threads: int, by: str) -> int:
    asked = {**way, "config": CONFIG, "batch": batch, "context": context, "threads": threads, "by": by}
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("worker.py")), json.dumps(asked)],
        env={**os.environ, **MALLOC, "PYTHONPATH": str(root), "OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return int(json.loads(done.stdout.splitlines()[-1])["peak_bytes"])


def activations_of(way: dict[str, Any]) -> Any:
    """Measure the copies with the same adapters as the fine-tune has."""
    from hgpu.tuning.methods import adapt

    job = job_of({**way, "batch": 1, "context": 16})
    asked = Asked(
        CONFIG,
        "small",
        DType(way["dtype"]),
        way["checkpointing"],
        mixed=way["precision"] == "mixed",
        adapt=None if way["method"] == "full" else lambda model: adapt(model, job)[0],
    )
    return measure_activations(asked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contexts", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ways", type=int, nargs="+", default=range(len(ways())), help="by number, from 0")
    args = parser.parse_args()
    print(
        "| method | format | checkpointed | batch × context | predicted, MiB | at | allocated, MiB | error"
        " | resident, MiB | error |"
    )
    print("|---|---|---|---:|---:|---|---:|---:|---:|---:|")
    for way in [ways()[number] for number in args.ways]:
        activations = activations_of(way)
        for batch, context in product(args.batches, args.contexts):
            said, at = predicted_bytes(way, activations, batch, context)
            given = measured_bytes(way, batch, context, args.threads, "allocator")
            resident = measured_bytes(way, batch, context, args.threads, "resident")
            cells = [
                way["method"],
                f"{way['dtype']} {way['precision'] if way['precision'] == 'mixed' else ''}".strip(),
                "yes" if way["checkpointing"] else "no",
                f"{batch} × {context}",
                f"{said / MIB:.0f}",
                at,
                f"{given / MIB:.0f}",
                f"{said / given - 1:+.1%}",
                f"{resident / MIB:.0f}",
                f"{said / resident - 1:+.1%}",
            ]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
