"""The training loop: batches in an order that depends on the step alone, and a checkpoint now and then."""

import time
from collections.abc import Callable
from math import isfinite
from pathlib import Path

import torch
from torch import nn

from hgpu.core.errors import HgpuError
from hgpu.core.training import Method, Sharding
from hgpu.tuning.checkpoint import Course, read_checkpoint, restore, save_checkpoint
from hgpu.tuning.dataset import Rows, Sequences, numbers_of_step
from hgpu.tuning.job import TuneJob
from hgpu.tuning.lamda_factors import freeze_for_step
from hgpu.tuning.loading import mixed
from hgpu.tuning.methods import trained_now
from hgpu.tuning.peak_memory import forget_peak, peak_bytes
from hgpu.tuning.ranks import ALONE, Ranks
from hgpu.tuning.schedule import rate_at

Progress = Callable[[int, int, str], None]
LONGEST_GRADIENT = 1.0  # its norm is clipped to this, as Hugging Face's Trainer does by default


def train(
    model: nn.Module,
    job: TuneJob,
    sequences: Sequences,
    checkpoint: Path | None,
    progress: Progress,
    ranks: Ranks = ALONE,
) -> Course:
    """Train all steps, going on from the checkpoint where there is one, and return what was measured.

    Each process trains on its share of a batch, and all take the step of the whole batch's mean gradient. The
    leader alone reads and writes the checkpoint. Raises HgpuError where the loss stops being a number or the
    device's memory is full.
    """
    device = next(model.parameters()).device.type
    course, parts = read_checkpoint(checkpoint, ranks)
    if job.method is Method.LAMDA:
        freeze_for_step(model, None, course.step - 1 if course.step else 0, job.steps, job.freeze_share)
    optimizer = torch.optim.AdamW(trained_now(model), lr=job.learning_rate, weight_decay=job.weight_decay)
    if parts is not None:
        restore(parts, model, optimizer, ranks)
    if course.held_out_before is None and len(sequences.held_out):
        course.held_out_before = mean_loss(model, job, sequences.held_out, ranks)
    known = forget_peak(device)
    model.train()
    while course.step < job.steps:
        try:
            _step(model, job, sequences, optimizer, course, ranks)
        except torch.OutOfMemoryError as error:
            raise HgpuError(
                "the device's memory is full",
                str(error).partition(".")[0],
                "lower micro_batch or context, or set checkpointing: true; then run it again",
            ) from error
        if known:
            peak = ranks.most(peak_bytes(device) or 0)
            course.peak_bytes = max(peak, course.peak_bytes or 0) or None
        progress(course.step, job.steps, f"loss {course.losses[-1]:.3f}")
        if checkpoint and (course.step % job.save_every_steps == 0 or course.step == job.steps):
            save_checkpoint(checkpoint, model, optimizer, course, ranks)
    return course


def _step(
    model: nn.Module,
    job: TuneJob,
    sequences: Sequences,
    optimizer: torch.optim.Optimizer,
    course: Course,
    ranks: Ranks,
) -> None:
    began_s = time.perf_counter()
    if job.method is Method.LAMDA:
        freeze_for_step(model, optimizer, course.step, job.steps, job.freeze_share)
    for group in optimizer.param_groups:
        group["lr"] = job.learning_rate * rate_at(course.step, job.steps, job.warmup_steps)
    rows = numbers_of_step(course.step, job.batch, len(sequences.train), job.seed)
    loss = _gradients(model, job, sequences.train[rows], ranks)
    if not isfinite(loss):
        raise HgpuError(
            f"the loss of step {course.step} is {loss}", "training has diverged", "lower learning_rate"
        )
    parameters = trained_now(model)
    ranks.mean_gradients(parameters)
    torch.nn.utils.clip_grad_norm_(parameters, LONGEST_GRADIENT)
    optimizer.step()
    optimizer.zero_grad()
    course.step += 1
    course.losses.append(loss)
    course.trained.append(sum(parameter.numel() for parameter in parameters))
    course.seconds += time.perf_counter() - began_s


def _gradients(model: nn.Module, job: TuneJob, rows: Rows, ranks: Ranks) -> float:
    """Compute the gradients of this process's share of a batch, pass by pass, and return the batch's loss.

    Each token that is learned counts alike in it, in whichever pass it is. The other processes' shares are
    averaged with this one.
    """
    total = 0.0
    for part in rows.parts(job.micro_batch)[ranks.number :: ranks.count]:
        loss = _loss(model, job, part) * (part.learned / rows.learned)
        (loss * ranks.count).backward()
        total += loss.item()
    return ranks.total(total)


def mean_loss(model: nn.Module, job: TuneJob, rows: Rows, ranks: Ranks = ALONE) -> float:
    """Return the mean loss of the tokens that are learned, without training.

    The processes divide the sequences. All make the same number of passes, as those of a sharded model need
    each other: the last may be for show.
    """
    was_training = model.training
    model.eval()
    parts = rows.parts(job.micro_batch)
    total = 0.0
    with torch.no_grad():
        for first in range(0, len(parts), ranks.count):
            number = first + ranks.number
            part = parts[min(number, len(parts) - 1)]
            loss = _loss(model, job, part).item()
            total += loss * part.learned if number < len(parts) else 0.0
    model.train(was_training)
    return ranks.total(total) / rows.learned


def _loss(model: nn.Module, job: TuneJob, rows: Rows) -> torch.Tensor:
    device = next(model.parameters()).device
    tokens, labels = (torch.from_numpy(each).to(device) for each in (rows.tokens, rows.labels))
    autocast = mixed(job) and job.sharding is Sharding.NONE  # FSDP casts as it gathers
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast):
        loss: torch.Tensor = model(input_ids=tokens, labels=labels, use_cache=False).loss
    return loss
