"""Routing traces from a real vLLM on this machine: which experts the tokens of real prompts went to.

The engine lives in a child process (`experts_worker`). At each batch size so many prompts are kept running:
as one has its tokens, the next joins, whose prompt shares its step with the decodes of the others. A batch
size ends when there is no prompt left to fill it, so that every step is full.
"""

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hgpu.core.errors import EngineError, InputError
from hgpu.core.experts import CopySpeed, Link
from hgpu.core.gpu import GpuType
from hgpu.core.operating_point import OperatingPoint
from hgpu.profilers.last_words import last_words
from hgpu.profilers.routing_record import RoutingRecord, from_npz
from hgpu.profilers.vllm_args import engine_arguments, engine_environment
from hgpu.profilers.vllm_events import Limits, events
from hgpu.profilers.vllm_process import Progress, child, let_go, manner

BATCHES = (1, 4, 16, 32)
START_LIMIT_S, BATCH_LIMIT_S = 3600.0, 3600.0
REPORT_FILE = "report.json"


@dataclass(frozen=True, slots=True)
class RoutingJob:
    """What to record: `prompts` continued by `tokens` tokens each, at every batch size.

    `source` is a model folder or a Hugging Face id. Tokens are sampled at `temperature` by an engine with
    `seed`; greedy ones (0) send small models round in circles.
    """

    source: str
    point: OperatingPoint
    gpu: GpuType
    prompts: tuple[str, ...]
    batches: tuple[int, ...] = BATCHES
    tokens: int = 64
    temperature: float = 1.0
    seed: int = 0
    load_format: str = "auto"
    cores: tuple[int, ...] = ()
    gpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class RoutingResult:
    """A record of each batch size, the experts of a layer, the speed of a copy of one, and where it ran."""

    runs: dict[int, RoutingRecord]
    experts: int
    copies: CopySpeed
    engine: str
    driver: str
    machine: str


def record_routing(job: RoutingJob, progress: Progress, python: str = sys.executable) -> RoutingResult:
    """Run the prompts through vLLM and return what was routed where.

    Raises InputError where the job can't be run, EngineError where vLLM fails or can't be watched.
    """
    refuse_unrecordable(job)
    with tempfile.TemporaryDirectory(prefix="hgpu-routing-") as name:
        base = Path(name) / "routing"
        environment = engine_environment(job.source, job.point, job.gpu, job.cores, job.gpus)
        environment |= {"VLLM_USE_V2_MODEL_RUNNER": "0"}  # the hooks are made for the first one's batches
        order = _order(job, Path(name))
        with child("hgpu.profilers.experts_worker", order, base, environment, python) as process:
            _follow(process, base, progress)
        return _result(Path(name), job.batches)


def read_prompts(path: Path) -> tuple[str, ...]:
    """Return the prompts of a file of JSON lines, each with a `prompt`: the form of vLLM's custom data sets.

    Raises InputError where a line isn't one.
    """
    prompts = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line) if line.strip() else None
        except ValueError:
            row = ...
        if row is None:
            continue
        if not isinstance(row, dict) or not isinstance(row.get("prompt"), str) or not row["prompt"]:
            raise InputError(
                f"line {number} of {path} has no prompt",
                "each line is a JSON object whose 'prompt' is a text",
                'write lines as {"prompt": "def main():"}',
            )
        prompts.append(row["prompt"])
    return tuple(prompts)


def refuse_unrecordable(job: RoutingJob) -> None:
    """Raise InputError for a job that no machine could run."""
    if not job.batches or min(job.batches) < 1 or job.tokens < 2:
        what = f"nothing decodes in batches of {job.batches} with {job.tokens} tokens"
        raise InputError(what, "the first token comes of the prompt", "ask for 2 tokens or more")
    if len(job.prompts) < max(job.batches):
        raise InputError(
            f"{len(job.prompts)} prompts don't fill a batch of {max(job.batches)}",
            "each sequence of a batch is a prompt of its own",
            f"give {max(job.batches)} prompts or more, or smaller batches",
        )
    if job.point.tp > 1:
        raise InputError(
            f"routing can't be recorded on {job.point.tp} ranks", "they are processes of their own",
            "record on one device; routing doesn't depend on how many there are",
        )  # fmt: skip


def _order(job: RoutingJob, folder: Path) -> dict[str, Any]:
    arguments = engine_arguments(job.source, job.point, job.gpu, job.load_format)
    arguments |= {"enforce_eager": True, "max_num_seqs": max(job.batches)}
    return {
        "folder": str(folder),
        "parent_pid": os.getpid(),
        "cores": job.cores if job.gpu.is_cpu else (),
        "arguments": arguments,
        "prompts": job.prompts,
        "batches": job.batches,
        "tokens": job.tokens,
        "temperature": job.temperature,
        "seed": job.seed,
    }


def _follow(process: Any, base: Path, progress: Progress) -> None:
    for event in events(process, Limits(START_LIMIT_S, BATCH_LIMIT_S)):
        match event:
            case {"done": int(done), "total": int(total), "at": str(at)}:
                progress(done, total, at)
            case {"begins": _}:
                pass  # from here on it is a batch's limit that holds
            case {"error": [str(what), str(why), str(fix)], "input": bool(input_)}:
                raise (InputError if input_ else EngineError)(what, why, fix)
            case {"finished": True}:
                let_go(process)
                return
            case _:
                raise EngineError(f"vLLM failed ({manner(event)})", last_words(base.with_suffix(".log")))


def _result(folder: Path, batches: Sequence[int]) -> RoutingResult:
    report = json.loads((folder / REPORT_FILE).read_text(encoding="utf-8"))
    runs = {batch: from_npz((folder / f"{batch}.npz").read_bytes()) for batch in batches}
    copies = {**report["copies"], "link": Link(report["copies"]["link"])}
    return RoutingResult(**{**report, "runs": runs, "copies": CopySpeed(**copies)})
