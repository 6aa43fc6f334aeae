"""Several plans of one spec: the values to try, and what came of each."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hgpu.artifacts.payloads.plan import PlanPayload
from hgpu.artifacts.store import Artifact
from hgpu.core.errors import HgpuError, InputError

ALIASES = {"rate": "workload.rate_rps", "rate_rps": "workload.rate_rps"}


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination of values, with its plan or the reason why there is none."""

    values: dict[str, Any]
    artifact: Artifact[PlanPayload] | None
    error: HgpuError | None = None

    @property
    def plan(self) -> Artifact[PlanPayload]:
        """The plan; raises the reason where there is none."""
        if self.artifact is None:
            assert self.error is not None
            raise self.error
        return self.artifact


def combinations(sweeps: Sequence[str]) -> list[dict[str, Any]]:
    """Return every combination of swept values, the first sweep outermost; one empty one for none.

    `rate=1,4,16` lists values, `rate=1:64` doubles from 1 to 64. Raises InputError.
    """
    axes = [_axis(text) for text in sweeps]
    names = [name for name, _ in axes]
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*(v for _, v in axes))]


def _axis(text: str) -> tuple[str, list[float]]:
    name, equals, values = text.partition("=")
    try:
        if not (name and equals):
            raise ValueError("no '='")
        if ":" in values:
            low, high = (float(part) for part in values.split(":"))
            return ALIASES.get(name, name), _doubling(low, high)
        return ALIASES.get(name, name), [float(part) for part in values.split(",")]
    except ValueError as error:
        raise InputError(f"bad sweep '{text}'", str(error), "write rate=1,4,16 or rate=1:64") from error


def _doubling(low: float, high: float) -> list[float]:
    if not 0 < low <= high:
        raise ValueError("a range goes from a positive number upward")
    values = [low]
    while values[-1] * 2 <= high:
        values.append(values[-1] * 2)
    return values
