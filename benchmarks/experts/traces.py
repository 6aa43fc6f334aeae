"""Record the routing of a model on held-out source with real vLLM: to learn from, and to judge by.

    python benchmarks/experts/traces.py MODEL FOLDER [--cores 0]

Half of the held-out files are the profile, the other half the test. Writes `profile.npz` and `test-B.npz` for
each batch size B.
"""

import argparse
import random
from pathlib import Path

from corpus import texts

from hgpu.catalog.gpus import resolve_gpu
from hgpu.core.gpu import DType
from hgpu.core.operating_point import EngineOptions, OperatingPoint
from hgpu.profilers.experts import BATCHES, RoutingJob, record_routing

PROMPT_LETTERS, APART_LETTERS = 1200, 1500  # 300 to 500 tokens
PROFILE_PROMPTS, TEST_PROMPTS = 160, 64
ENGINE = EngineOptions(
    max_num_batched_tokens=4096, max_num_seqs=32, max_model_len=1024, enforce_eager=True, kv_cache_bytes=2**30
)


def main() -> None:
    """Record both halves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cores", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    files = texts("held-out")
    cpu = resolve_gpu(f"cpu-{len(options.cores)}core")
    point = OperatingPoint(cpu.name, dtype=DType.BF16, engine=ENGINE)
    for name, half, count, batches in (
        ("profile", files[::2], PROFILE_PROMPTS, (max(BATCHES),)),
        ("test", files[1::2], TEST_PROMPTS, BATCHES),
    ):
        job = RoutingJob(
            str(options.model), point, cpu, _prompts(half, count), batches, cores=tuple(options.cores)
        )
        result = record_routing(job, lambda done, total, at, name=name: print(f"{name}: {done}/{total} {at}"))
        for batch, record in result.runs.items():
            file = "profile.npz" if name == "profile" else f"test-{batch}.npz"
            (options.folder / file).write_bytes(record.to_npz())
    print(f"{result.engine} on {result.machine}; {result.copies}")


def _prompts(files: list[str], count: int) -> tuple[str, ...]:
    """Return stretches of files, drawn from all of them."""
    starts = [(text, at) for text in files for at in range(0, len(text) - PROMPT_LETTERS, APART_LETTERS)]
    drawn = random.Random(0).sample(starts, count)
    return tuple(text[at : at + PROMPT_LETTERS] for text, at in drawn)


if __name__ == "__main__":
    main()
