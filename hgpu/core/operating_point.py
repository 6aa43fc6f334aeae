"""The unit that is profiled, fitted and packed: a GPU type and the way an engine runs on it."""

from dataclasses import dataclass, field, replace
from enum import StrEnum

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
    """A GPU type, a tensor parallel degree, a mode and engine options."""

    gpu: str
    tp: int = 1
    mode: Mode = Mode.MIXED
    dtype: DType = DType.BF16
    engine: EngineOptions = field(default_factory=EngineOptions)

    @property
    def name(self) -> str:
        """Short label, as `H100-SXM tp2` or `L4`."""
        parts = [self.gpu]
        if self.tp > 1:
            parts.append(f"tp{self.tp}")
        if self.mode is not Mode.MIXED:
            parts.append(str(self.mode))
        return " ".join(parts)

    @property
    def timed_as(self) -> "OperatingPoint":
        """The point whose steps it takes: mode `pd` chooses what is in a step, and changes no step."""
        return replace(self, mode=Mode.MIXED) if self.mode is Mode.PD else self

    @property
    def formats(self) -> str:
        """Format of the weights and, where it was asked for, of the KV cache: `bf16, KV cache in fp8`."""
        cache = self.engine.kv_cache_dtype
        return f"{self.dtype}, KV cache in {cache}" if cache else str(self.dtype)
