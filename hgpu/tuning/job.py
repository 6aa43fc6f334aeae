"""What one fine-tune does: a spec with a single choice of whatever it may list."""

from dataclasses import asdict, dataclass
from pathlib import Path

from hgpu.artifacts.digest import digest_of, file_digest
from hgpu.core.errors import InputError
from hgpu.core.gpu import DType
from hgpu.core.training import Sharding
from hgpu.specs.finetune import FinetuneSpec, Method, Offload
from hgpu.tuning.documents import data_files

TRAINED = (DType.BF16, DType.FP32)


@dataclass(frozen=True, slots=True)
class TuneJob:
    """A fine-tune; the fields are those of FinetuneSpec, each with one value."""

    model: str
    dtype: DType | None
    precision: str
    method: Method
    rank: int
    targets: tuple[str, ...]
    alpha: float
    freeze_share: float
    rank_allocation: str
    context: int
    batch: int
    micro_batch: int
    steps: int
    checkpointing: bool
    data: str
    learning_rate: float
    weight_decay: float
    warmup_steps: int
    seed: int
    save_every_steps: int
    data_parallel: int = 1
    sharding: Sharding = Sharding.NONE

    def key(self) -> str:
        """Return the digest of everything that the result depends on: the job, its data and its weights.

        Weights are told apart by name, size and time of their files, as hashing them takes long. On one
        device the number of devices isn't in it, so that checkpoints of before there could be more count on.
        """
        model = Path(self.model)
        weights = sorted(model.iterdir()) if model.is_dir() else []
        alone = ("data_parallel", "sharding") if self.data_parallel == 1 else ()
        return digest_of(
            {
                "job": {name: value for name, value in asdict(self).items() if name not in alone},
                "data": [[path.name, file_digest(path)] for path in data_files(self.data)],
                "weights": [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in weights],
            }
        )


CHOICES = (
    "method",
    "rank",
    "tensor_parallel",
    "data_parallel",
    "sharding",
    "micro_batch",
    "checkpointing",
    "offload",
)
SAVES = 10  # checkpoints of a run where the spec doesn't say how many


def job_of(spec: FinetuneSpec) -> TuneJob:
    """Return the job of a spec. Raises InputError where it leaves a choice open or can't run here."""
    if spec.data is None:
        raise InputError("nothing to train on", "the spec has no `data`", "add `data: train.jsonl`")
    if not Path(spec.data).exists():
        raise InputError(f"no data at {spec.data}", "there is no such file or folder", "correct `data`")
    _require_choice(spec)
    if spec.offload[0] is not Offload.NONE:
        raise InputError(
            "hgpu tune doesn't offload",
            f"the spec says offload: {spec.offload[0]}; plans can, a run here keeps all on its devices",
            "--set offload=none",
        )
    if spec.dtype is not None and spec.dtype not in TRAINED:
        raise InputError(
            f"hgpu tune doesn't train in {spec.dtype}", "it has no loss scaling", "use bf16 or fp32"
        )
    rank, copies = spec.rank[0], _copies(spec)
    micro_batch = _micro_batch(spec, copies)
    return TuneJob(
        model=spec.model,
        dtype=spec.dtype,
        precision=spec.precision,
        method=spec.method[0],
        rank=rank,
        targets=tuple(spec.targets),
        alpha=spec.alpha or 2 * rank,
        freeze_share=spec.freeze_share,
        rank_allocation=spec.rank_allocation,
        context=spec.context,
        batch=spec.batch,
        micro_batch=micro_batch,
        steps=spec.total_steps,
        checkpointing=spec.checkpointing[0],
        data=spec.data,
        learning_rate=spec.learning_rate,
        weight_decay=spec.weight_decay,
        warmup_steps=spec.warmup_steps,
        seed=spec.seed,
        save_every_steps=spec.save_every_steps or max(1, spec.total_steps // SAVES),
        data_parallel=copies,
        sharding=_sharding(spec, copies),
    )


def _copies(spec: FinetuneSpec) -> int:
    """Return the copies of the model that share a batch, a device each."""
    if (parallel := spec.tensor_parallel[0]) != 1:
        raise InputError(
            f"hgpu tune doesn't split layers over {parallel} devices",
            "each of its processes computes whole layers on a device of its own",
            "--set tensor_parallel=1, with data_parallel for more devices",
        )
    return spec.data_parallel[0]


def _micro_batch(spec: FinetuneSpec, copies: int) -> int:
    if spec.batch % copies:
        raise InputError(
            f"a batch of {spec.batch} can't be shared by {copies} devices",
            "each trains on the same number of sequences",
            "choose a data_parallel that divides batch",
        )
    micro_batch = (spec.micro_batch or [spec.batch // copies])[0]
    if spec.batch // copies % micro_batch:
        share = f" share of {spec.batch // copies} of the" if copies > 1 else ""
        raise InputError(
            f"a{share} batch of {spec.batch} isn't made of passes of {micro_batch}",
            "each pass has the same number of sequences",
            f"choose a micro_batch that divides {spec.batch // copies}",
        )
    return micro_batch


def _sharding(spec: FinetuneSpec, copies: int) -> Sharding:
    """Return how several copies are kept: whole where the spec doesn't say, which a plan would choose."""
    if copies == 1 or "sharding" not in spec.model_fields_set:
        return Sharding.NONE
    return spec.sharding[0]


def _require_choice(spec: FinetuneSpec) -> None:
    """Raise InputError that names all fields of which the spec leaves more than one value."""
    names = [name for name in CHOICES if len(getattr(spec, name) or ()) > 1]
    if spec.data_parallel == [1] or "sharding" not in spec.model_fields_set:
        names = [name for name in names if name != "sharding"]
    if names:
        listed = {name: [str(value).lower() for value in getattr(spec, name)] for name in names}
        raise InputError(
            f"not clear what to train with: {', '.join(names)}",
            "the spec lists, for a plan to choose from: "
            + "; ".join(f"{name} {', '.join(values)}" for name, values in listed.items()),
            " ".join(f"--set {name}={values[0]}" for name, values in listed.items())
            + "; or `hgpu plan` it, and then `hgpu tune latest`",
        )
