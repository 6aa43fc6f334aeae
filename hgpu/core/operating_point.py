"""The unit that is profiled, fitted and packed: a GPU type and the way an engine runs on it."""

from dataclasses import dataclass, field
from enum import StrEnum

from hgpu.core.gpu import DType


class Mode(StrEnum):
    """How an engine runs."""

    MIXED = "mixed"  # chunked prefill and decode share every step
    PD = "pd"  # prefill and decode partitions
    OFFLOAD = "offload"  # experts in host memory behind a cache


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Engine settings that change its speed; the names are vLLM's."""

    max_num_batched_tokens: int = 2048
    max_num_seqs: int = 256
    max_model_len: int = 8192
    gpu_memory_utilization: float = 0.9
    enforce_eager: bool = False
    kv_cache_bytes: int | None = None


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
