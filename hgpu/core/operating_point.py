"""The unit that is profiled, fitted and packed: a GPU type and the way an engine runs on it."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum

from hgpu.core.errors import InputError
from hgpu.core.experts import ExpertCache
from hgpu.core.gpu import DType


class Mode(StrEnum):
    """How an engine runs."""

    MIXED = "mixed"  # chunked prefill and decode share every step
    PD = "pd"  # prefill and decode partitions
    OFFLOAD = "offload"  # experts in host memory behind a cache


KV_DTYPES = (DType.BF16, DType.FP16, DType.FP8)  # what an engine can be asked to keep its KV cache in


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Engine settings that change its speed; the names are vLLM's.

    `kv_cache_dtype` is one of KV_DTYPES; None keeps the KV cache as the model says (vLLM's "auto").
    """

    max_num_batched_tokens: int = 2048
    max_num_seqs: int = 256
    max_model_len: int = 8192
    gpu_memory_utilization: float = 0.9
    enforce_eager: bool = False
    kv_cache_bytes: int | None = None
    kv_cache_dtype: DType | None = None


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A GPU type, a tensor parallel degree, a mode and engine options; in mode `offload` an expert cache.

    Raises InputError for mode `offload` without a cache, and for a cache in another mode.
    """

    gpu: str
    tp: int = 1
    mode: Mode = Mode.MIXED
    dtype: DType = DType.BF16
    engine: EngineOptions = field(default_factory=EngineOptions)
    experts: ExpertCache | None = None

    def __post_init__(self) -> None:
        if (self.mode is Mode.OFFLOAD) != (self.experts is not None):
            raise InputError(
                f"an operating point in mode '{self.mode}' with{'out' if not self.experts else ''} a cache",
                "mode 'offload' has an expert cache, and no other mode has one",
                "give both or neither",
            )

    @property
    def name(self) -> str:
        """Short label, as `H100-SXM tp2`, `L4` or `L4 offload 25% pinned_lfu`."""
        parts = [self.gpu]
        if self.tp > 1:
            parts.append(f"tp{self.tp}")
        if self.mode is not Mode.MIXED:
            parts.append(str(self.mode))
        if self.experts is not None:
            parts.append(self.experts.name)
        return " ".join(parts)

    @property
    def full_name(self) -> str:
        """The name with the token budget of a step, as `L4 512t`; in mode `offload` with its batch limit."""
        seqs = f" {self.engine.max_num_seqs} seqs" if self.experts is not None else ""
        return f"{self.name}{seqs} {self.engine.max_num_batched_tokens}t"

    def times(self, other: "OperatingPoint") -> bool:
        """Tell whether a step model of this point is one of another's.

        Mode `pd` and the token budget choose what is in a step, and change no step: so the other may be in
        mode `pd` where this one is in mode `mixed`, and have a smaller budget.
        """
        tokens = self.engine.max_num_batched_tokens
        mode = self.mode if other.mode is Mode.PD and self.mode is Mode.MIXED else other.mode
        same = replace(other, mode=mode, engine=replace(other.engine, max_num_batched_tokens=tokens))
        return same == self and other.engine.max_num_batched_tokens <= tokens

    @property
    def formats(self) -> str:
        """Format of the weights and, where it was asked for, of the KV cache: `bf16, KV cache in fp8`."""
        cache = self.engine.kv_cache_dtype
        return f"{self.dtype}, KV cache in {cache}" if cache else str(self.dtype)


def timed_points(points: Iterable[OperatingPoint]) -> dict[OperatingPoint, OperatingPoint]:
    """Return for each point the one whose steps are timed for it: in mode `mixed`, of the largest budget."""
    given = list(dict.fromkeys(points))
    mixed = [replace(point, mode=Mode.MIXED) if point.mode is Mode.PD else point for point in given]
    largest = sorted(mixed, key=lambda point: -point.engine.max_num_batched_tokens)
    return {point: next(one for one in largest if one.times(point)) for point in given}


def names_of(points: Iterable[OperatingPoint]) -> dict[OperatingPoint, str]:
    """Return a name for each point that no other has: with its token budget where several share the name."""
    known = set(points)
    names = [point.name for point in known]
    return {point: point.name if names.count(point.name) == 1 else point.full_name for point in known}
