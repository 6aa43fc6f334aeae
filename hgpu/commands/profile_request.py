"""What the user asks of `hgpu profile`."""

from dataclasses import dataclass
from pathlib import Path

from hgpu.profilers.vllm import POINT_LIMIT_S


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked of each operating point."""

    root: Path
    profiler: str = "auto"
    repeats: int = 3
    budget_s: float = 0.0
    load_format: str = "auto"
    url: str | None = None
    kv_tokens: int | None = None
    ray: str | None = None
    ray_timeout_s: float = 60.0
    point_limit_s: float = POINT_LIMIT_S


@dataclass(frozen=True, slots=True)
class RoutingRequest:
    """What the user asked of the recording of routes."""

    root: Path
    prompts: Path | None
    batches: tuple[int, ...]
    tokens: int
    temperature: float
    load_format: str
