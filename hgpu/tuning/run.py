"""A fine-tune from its job to its artifact: load, adapt, train, save."""

import importlib.util
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from hgpu.artifacts.digest import file_digest
from hgpu.artifacts.manifest import Environment, InputRef
from hgpu.artifacts.payloads.tuning import HeldOut, Memory, TrainedParameters, TuningPayload
from hgpu.artifacts.store import Artifact, Draft, save
from hgpu.core.errors import EngineError, InputError
from hgpu.core.provenance import Provenance
from hgpu.profilers.vllm_host import driver_and_machine
from hgpu.tuning.dataset import Sequences, numbers_of_step
from hgpu.tuning.documents import data_files
from hgpu.tuning.job import TuneJob
from hgpu.tuning.peak_memory import DEVICE, PROCESS, held_bytes
from hgpu.tuning.ranks import ALONE, Ranks, device
from hgpu.tuning.weights import save_weights

if TYPE_CHECKING:
    from hgpu.tuning.checkpoint import Course

NEEDED = ("torch", "transformers", "peft")
Progress = Callable[[int, int, str], None]
Say = Callable[[str], None]


def require_packages() -> None:
    """Raise EngineError where what trains isn't installed."""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise EngineError(
            f"not installed: {', '.join(missing)}",
            f"`hgpu tune` trains with it, and '{sys.executable}' can't import it",
            "pip install 'hgpu[tune]'",
        )


def tune(
    job: TuneJob,
    root: Path,
    progress: Progress,
    say: Say,
    ranks: Ranks = ALONE,
    plan: Sequence[InputRef] = (),
) -> Artifact[TuningPayload] | None:
    """Run a fine-tune, or go on with one that was ended, and return its artifact under `root`.

    `plan` is what chose the job. The checkpoint lies in `root`/journal, the weights come to `root`/tuned; of
    several processes the leader alone writes, and the others return None. Raises InputError where job, data
    and model don't fit, EngineError where a package is missing, HgpuError where training fails.
    """
    require_packages()
    folder = root / "journal" / f"tuning-{job.key()[:12]}"
    checkpoint = folder / "checkpoint.safetensors"
    if not ranks.leads:
        return _tuned(job, root, checkpoint, lambda *_: None, lambda _: None, ranks, plan)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "lock", timeout=0):
            artifact = _tuned(job, root, checkpoint, progress, say, ranks, plan)
    except Timeout as error:
        raise InputError(
            "this fine-tune is already running", f"another process holds {folder}", "wait for it to end"
        ) from error
    shutil.rmtree(folder)
    return artifact


def _tuned(
    job: TuneJob,
    root: Path,
    checkpoint: Path,
    progress: Progress,
    say: Say,
    ranks: Ranks,
    plan: Sequence[InputRef],
) -> Artifact[TuningPayload] | None:
    import torch

    from hgpu.tuning.loading import load_model, load_sequences, with_dtype
    from hgpu.tuning.methods import adapt, trained_state
    from hgpu.tuning.sharded import gathered, shard
    from hgpu.tuning.train import mean_loss, train

    job = with_dtype(job)
    sequences = load_sequences(job)
    before = held_bytes(device())
    torch.manual_seed(job.seed)
    plain = load_model(job, device())
    of_model = plain.num_parameters()
    model, adapted = adapt(plain, job, ranks)
    shard(model, plain, job, ranks)
    ranks.spread(trained_state(model).values())  # as DDP does: all begin with the same, whatever they loaded
    if not ranks.leads:
        torch.manual_seed(job.seed + ranks.number)  # each drops out other activations
    if ranks.leads and checkpoint.exists():
        say(f"going on from {checkpoint}")
    course = train(model, job, sequences, checkpoint, progress, ranks)
    after = mean_loss(model, job, sequences.held_out, ranks) if len(sequences.held_out) else None
    state = {name: gathered(tensor, ranks) for name, tensor in trained_state(model).items()}
    if not ranks.leads:
        return None
    name = re.sub(r"[^A-Za-z0-9.]+", "-", f"{Path(job.model).name}-{job.method}").lower()
    weights, files = save_weights(model, state, name, root / "tuned")
    payload = TuningPayload(
        **_what(job, sequences, adapted),
        **_measured(job, course, of_model, trained_tokens(job, sequences)),
        processes=ranks.count,
        sharding=job.sharding,
        held_out=_held_out(len(sequences.held_out), course.held_out_before, after),
        memory=Memory(
            of=DEVICE if device() == "cuda" else PROCESS, before_bytes=before, peak_bytes=course.peak_bytes
        ),
        weights=str(weights.relative_to(root)),
        files=files,
        provenance=Provenance.MEASURED,
    )
    driver, machine = driver_and_machine()
    environment = Environment(driver=driver or None, machine=machine, engine=f"torch {torch.__version__}")
    draft = Draft(
        "tuning", name, payload, [*plan, *_data(job)], options=_options(job), environment=environment
    )
    return save(root, draft)


def _data(job: TuneJob) -> list[InputRef]:
    return [InputRef(role=path.name, kind="file", digest=file_digest(path)) for path in data_files(job.data)]


def _what(job: TuneJob, sequences: Sequences, ranks: dict[str, int]) -> dict[str, Any]:
    names = ("model", "method", "context", "batch", "steps", "seed")
    given = {name: getattr(job, name) for name in names}
    return {
        **given,
        "ranks": ranks,
        "documents": sequences.documents,
        "sequences": len(sequences.train),
    }


def trained_tokens(job: TuneJob, sequences: Sequences) -> int:
    """Return the tokens of all steps' sequences, without what fills those of examples."""
    lengths, count = sequences.train.lengths, len(sequences.train)
    steps = (numbers_of_step(step, job.batch, count, job.seed) for step in range(job.steps))
    return sum(int(lengths[numbers].sum()) for numbers in steps)


def _measured(job: TuneJob, course: "Course", of_model: int, tokens: int) -> dict[str, Any]:
    return {
        "tokens": tokens,
        "losses": course.losses,
        "seconds": course.seconds,
        "tokens_per_s": tokens / course.seconds,
        "resumes": course.resumes,
        "trained": TrainedParameters(
            peak=max(course.trained),
            mean=sum(course.trained) / job.steps,
            final=course.trained[-1],
            of_model=of_model,
        ),
    }


def _held_out(count: int, before: float | None, after: float | None) -> HeldOut | None:
    if before is None or after is None:
        return None
    return HeldOut(sequences=count, before=before, after=after)


def _options(job: TuneJob) -> dict[str, Any]:
    """Return what of the job isn't in the payload."""
    shape = ("dtype", "precision", "rank", "targets", "alpha", "freeze_share", "rank_allocation")
    training = ("micro_batch", "checkpointing", "learning_rate", "weight_decay", "warmup_steps")
    return {name: getattr(job, name) for name in (*shape, *training)}
