"""LaMDA beside LoRA and a full fine-tune, on a model and data that the scripts beside this one made.

    OMP_NUM_THREADS=1 python benchmarks/lamda/run.py FOLDER/idlelib.jsonl --setup smollm2      # or small
    OMP_NUM_THREADS=1 python benchmarks/lamda/run.py FOLDER/newsgroups.jsonl --setup newsgroups

LoRA and LaMDA are tried with as many settings as each other (SETUPS) on seed 0; of each the setting that is
best on the validation sequences is run on other seeds, and judged on test sequences that nothing was chosen
by. LaMDA++ takes LaMDA's setting, and *lora-few* is LoRA with fewer parameters than LaMDA's mean. Finished
runs are kept in a .runs.jsonl beside the data, so that a second call goes on, and a second process with
`--only ARM` may help. Prints the table of the README.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import cross_entropy

from hgpu.specs.finetune import Method
from hgpu.tuning.dataset import NOT_LEARNED, Rows, Sequences
from hgpu.tuning.job import TuneJob
from hgpu.tuning.lamda_factors import freeze_for_step
from hgpu.tuning.loading import load_model, load_sequences, with_dtype
from hgpu.tuning.methods import adapt
from hgpu.tuning.peak_memory import held_bytes
from hgpu.tuning.train import mean_loss, train

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ROUNDS = 12  # of the timing, in which the methods take turns
METHODS = {"lamda++": "lamda", "lora-few": "lora"}
Settings = dict[str, Any]


@dataclass(frozen=True)
class Setup:
    """What is run on a base: the settings that compete on seed 0, and the seeds of those that win.

    `full` is the full fine-tune's, on the first of the seeds; LaMDA++ is run where it is. `measured` is the
    batch and context whose memory is measured. Validation and test are in files of their own where `split`.
    """

    context: int
    batch: int
    steps: int
    seeds: tuple[int, ...]
    grid: dict[str, list[Settings]]
    full: Settings | None
    measured: tuple[int, int]
    split: bool = False


SETUPS = {
    "smollm2": Setup(
        context=128,
        batch=4,
        steps=80,
        seeds=(1, 2),
        grid={
            "lora": [{"rank": 32, "learning_rate": rate} for rate in (1e-3, 2e-3, 4e-3)],
            "lamda": [
                {"rank": 32, "freeze_share": 0.3, "learning_rate": rate} for rate in (1e-3, 2e-3, 4e-3)
            ],
        },
        full=None,
        measured=(4, 512),
    ),
    "small": Setup(
        context=128,
        batch=4,
        steps=160,
        seeds=(1, 2, 3),
        grid={
            "lora": [
                {"rank": rank, "learning_rate": rate}
                for rank, rate in ((16, 3e-3), (16, 1e-2), (32, 1e-3), (32, 3e-3), (32, 1e-2))
            ],
            "lamda": [
                {"rank": rank, "freeze_share": share, "learning_rate": rate}
                for rank, share, rate in (
                    (16, 0.25, 1e-2),
                    (24, 0.25, 1e-2),
                    (16, 0.55, 1e-2),
                    (16, 0.55, 3e-3),
                    (16, 0.55, 1e-3),
                )
            ],
        },
        full={"learning_rate": 1e-3},
        measured=(16, 512),
    ),
    "newsgroups": Setup(
        context=160,
        batch=16,
        steps=120,
        seeds=(1, 2, 3),
        grid={
            "lora": [{"rank": 32, "learning_rate": rate} for rate in (5e-4, 1e-3, 2e-3)],
            "lamda": [
                {"rank": 32, "freeze_share": 0.3, "learning_rate": rate} for rate in (1e-3, 2e-3, 4e-3)
            ],
            "lora-few": [{"rank": 3, "learning_rate": rate} for rate in (2e-3, 4e-3)],
        },
        full=None,
        measured=(16, 64),
        split=True,
    ),
}


def job_for(data: Path, setup: Setup, arm: str, seed: int, **settings: Any) -> TuneJob:
    """The job of a method on the model that lies beside its data."""
    job = TuneJob(
        model=str(data.parent),
        dtype=None,
        precision="plain",
        method=Method(METHODS.get(arm, arm)),
        rank=16,
        targets=TARGETS,
        alpha=0.0,
        freeze_share=0.3,
        rank_allocation="energy" if arm == "lamda++" else "uniform",
        context=setup.context,
        batch=setup.batch,
        micro_batch=setup.batch,
        steps=setup.steps,
        checkpointing=False,
        data=str(data),
        learning_rate=1e-3,
        weight_decay=0.0,
        warmup_steps=10,
        seed=seed,
        save_every_steps=setup.steps,
    )
    job = replace(job, **settings)
    return with_dtype(replace(job, alpha=2.0 * job.rank))


@dataclass(frozen=True)
class Data:
    """What is trained on, what settings are chosen by, and what they are judged by."""

    train: Rows
    validation: Rows
    test: Rows


def load_data(job: TuneJob, split: bool) -> Data:
    """The rows of files of their own, or those that hgpu holds out in two halves."""
    if not split:
        sequences = load_sequences(job)
        return Data(sequences.train, sequences.held_out[::2], sequences.held_out[1::2])
    path = Path(job.data)
    names = (path.name, *(f"{path.stem}-{part}.jsonl" for part in ("validation", "test")))
    return Data(*(all_rows(replace(job, data=str(path.with_name(name)))) for name in names))


def all_rows(job: TuneJob) -> Rows:
    """All of a file, by length, so that a pass has little to fill."""
    found = load_sequences(job)
    both = [(rows.tokens, rows.labels) for rows in (found.train, found.held_out)]
    rows = Rows(*(np.concatenate(each) for each in zip(*both, strict=True)))
    return rows[np.argsort(rows.lengths, kind="stable")]


def judged(model: Any, job: TuneJob, rows: Rows) -> dict[str, float]:
    """The mean loss, and the share of rows of which all that is learned is what the model finds likeliest."""
    total, exact = 0.0, 0
    model.eval()
    with torch.no_grad():
        for part in rows.parts(job.micro_batch):
            logits = model(input_ids=torch.from_numpy(part.tokens), use_cache=False).logits[:, :-1]
            labels = torch.from_numpy(part.labels[:, 1:])
            learned = labels != NOT_LEARNED
            loss = cross_entropy(logits[learned].float(), labels[learned], reduction="sum")
            total += loss.item()
            exact += int(((logits.argmax(-1) == labels) | ~learned).all(dim=1).sum())
    return {"test": total / rows.learned, "exact": exact / len(rows)}


def one_run(job: TuneJob, data: Data) -> dict[str, Any]:
    torch.manual_seed(job.seed)
    model, _ = adapt(load_model(job, "cpu"), job)
    course = train(model, job, Sequences(data.train, data.train[:0], 0), None, lambda *_: None)
    return judged(model, job, data.test) | {
        "validation": mean_loss(model, job, data.validation),
        "train": sum(course.losses[-20:]) / 20,
        "mean_parameters": sum(course.trained) / len(course.trained),
        "peak_parameters": max(course.trained),
        "final_parameters": course.trained[-1],
    }


class Journal:
    """Finished runs by what they were runs of."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.done: dict[str, dict[str, Any]] = {}
        for line in lines:
            key, result = json.loads(line)
            self.done[key] = result

    def once(self, key: str, make: Any) -> dict[str, Any]:
        if key not in self.done:
            began_s = time.monotonic()
            self.done[key] = make()
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps([key, self.done[key]]) + "\n")
            shown = {name: round(value, 4) for name, value in self.done[key].items()}
            print(f"{key}: {shown} ({time.monotonic() - began_s:.0f} s)", file=sys.stderr, flush=True)
        return self.done[key]


def run_key(arm: str, seed: int, settings: dict[str, Any]) -> str:
    return f"{arm} seed {seed} " + " ".join(f"{name}={value:g}" for name, value in settings.items())


def saved_bytes(job: TuneJob) -> int:
    """Bytes that one pass keeps for the backward pass, beside parameters and buffers; each storage once."""
    model, _ = adapt(load_model(job, "cpu"), job)
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    tokens = torch.randint(0, 2048, (job.batch, job.context))
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
    loss.backward()
    return sum(kept.values())


def measured(data: Path, setup: Setup, arm: str, settings: Settings) -> dict[str, float]:
    """Peak memory of training in this process (which does nothing else), and what a pass saves."""
    batch, context = setup.measured
    setup = replace(setup, context=context, batch=batch, steps=3)
    job = replace(job_for(data, setup, arm, 0, **settings), freeze_share=1 / 3)  # B in one step of three
    tokens = np.random.default_rng(0).integers(0, 2048, (3 * batch, context))
    rows = Rows(tokens, tokens)
    model, _ = adapt(load_model(job, "cpu"), job)
    before = held_bytes("cpu")
    course = train(model, job, Sequences(rows, rows[:0], 0), None, lambda *_: None)
    assert before is not None and course.peak_bytes is not None, "this system doesn't tell its memory"
    del model
    return {"peak_bytes": course.peak_bytes - before, "saved_bytes": saved_bytes(job)}


def in_process(data: Path, setup: str, arm: str, settings: Settings) -> dict[str, float]:
    words = [sys.executable, __file__, str(data), "--setup", setup, "--measure", arm, json.dumps(settings)]
    freed = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # or glibc keeps what is freed, and the peak is of its habits
    done = subprocess.run(words, capture_output=True, text=True, check=True, env={**os.environ, **freed})
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def timed(data: Path, setup: Setup, best: dict[str, Settings]) -> dict[str, float]:
    """CPU seconds of a pass and its gradients, B frozen: medians over rounds of all methods in turn."""
    jobs = {arm: job_for(data, setup, arm, 0, **settings) for arm, settings in best.items()}
    models = {arm: adapt(load_model(job, "cpu"), job)[0] for arm, job in jobs.items()}
    tokens = torch.randint(0, 2048, (setup.measured[0] // 2, setup.measured[1] // 2))
    seconds: dict[str, list[float]] = {arm: [] for arm in models}
    for model in models.values():
        freeze_for_step(model, None, 0, 1, 0.0)
    for _ in range(ROUNDS):
        for arm, model in models.items():
            began_s = time.process_time()
            model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
            seconds[arm].append(time.process_time() - began_s)
    return {arm: median(values) for arm, values in seconds.items()}


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def main(data: Path, name: str, only: str | None) -> None:
    setup, journal = SETUPS[name], Journal(data.with_suffix(".runs.jsonl"))
    plain = job_for(data, setup, "full", 0)
    rows = load_data(plain, setup.split)

    def untouched() -> dict[str, float]:
        return judged(load_model(plain, "cpu"), plain, rows.test)

    def run(arm: str, seed: int, settings: Settings) -> dict[str, Any]:
        job = job_for(data, setup, arm, seed, **settings)
        return journal.once(run_key(arm, seed, settings), lambda: one_run(job, rows))

    def best_of(arm: str) -> Settings:
        return min(setup.grid[arm], key=lambda settings: run(arm, 0, settings)["validation"])

    best = {arm: best_of(arm) for arm in ([only] if only else setup.grid)}
    if not only:
        best |= {"lamda++": best["lamda"], "full": setup.full} if setup.full else {}
    seeds = {arm: setup.seeds[:1] if arm == "full" else setup.seeds for arm in best}
    finals = {arm: [run(arm, seed, best[arm]) for seed in seeds[arm]] for arm in best}
    if only:
        return
    memory = {
        arm: journal.once(
            f"memory of {run_key(arm, 0, settings)}",
            lambda arm=arm, settings=settings: in_process(data, name, arm, settings),
        )
        for arm, settings in best.items()
    }
    base = journal.once("untouched", untouched)
    times = journal.once(f"time of {best}", lambda: timed(data, setup, best))
    print_table(base, best, finals, memory, times)


def print_table(base: Any, best: Any, finals: Any, memory: Any, times: Any) -> None:
    lora = finals["lora"]
    print(f"\nuntouched model: test loss {base['test']:.3f}\n")
    print(
        "| method | setting | test loss, each seed | against LoRA | trained: peak | mean | final |"
        " mean, fewer than LoRA | CPU time of a pass | saved for backward | peak memory |"
    )
    print("|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for arm, runs in finals.items():
        ratios = [run["test"] / other["test"] for run, other in zip(runs, lora, strict=False)]
        setting = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in best[arm].items())
        mean, losses = runs[0]["mean_parameters"], [f"{run['test']:.3f}" for run in runs]
        print(
            f"| {arm} | {setting} | {', '.join(losses)} |"
            f" {100 * (median(ratios) - 1):+.1f} % | {runs[0]['peak_parameters']:,} | {mean:,.0f} |"
            f" {runs[0]['final_parameters']:,} | {lora[0]['mean_parameters'] / mean:.1f}× |"
            f" {times[arm] / times['lora']:.2f} |"
            f" {memory[arm]['saved_bytes'] / 2**20:.1f} MiB | {memory[arm]['peak_bytes'] / 2**20:.0f} MiB |"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--setup", choices=SETUPS, default="smollm2", help="which base it is")
    parser.add_argument("--only", metavar="ARM", help="one method's runs, for a process beside this one")
    parser.add_argument("--measure", nargs=2, metavar=("ARM", "SETTINGS"), help="internal: one arm's memory")
    given = parser.parse_args()
    if given.measure:
        arm, settings = given.measure[0], json.loads(given.measure[1])
        print(json.dumps(measured(given.data, SETUPS[given.setup], arm, settings)))
    else:
        main(given.data, given.setup, given.only)
