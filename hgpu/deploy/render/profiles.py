"""What AIBrix's GPU optimizer knows of a pool: how many requests/s an engine carries, by lengths.

Its format (AIBrix's `gen_profile.py`): rows are output lengths, columns input lengths; it takes each request
for the nearest pair of lengths, by their logarithms. All profiles of a model have the same lengths.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

import numpy as np
from pydantic import Field, ValidationError, model_validator

from hgpu.artifacts.manifest import Strict
from hgpu.artifacts.payloads.plan import AllocationRow, PlanPayload
from hgpu.core.errors import InputError
from hgpu.core.operating_point import OperatingPoint
from hgpu.core.slo import Objective, Slo
from hgpu.core.step import LatencyModel
from hgpu.core.workload import Bucket, Workload
from hgpu.deploy.render.document import Document, RenderOptions, pool_slug, pools
from hgpu.latency.capacity import Capacity, capacities, lengths_of, percentiles
from hgpu.latency.confidence import slower
from hgpu.latency.queueing import steady_state

REDIS_KEY = "aibrix:profile_{model}_{deployment}"
Latency = Mapping[OperatingPoint, LatencyModel]
Matrix = list[list[float]]


class GpuProfile(Strict):
    """A profile as the optimizer reads it; a rate of 0 says that the pool can't serve these lengths."""

    gpu: str
    cost: float = Field(gt=0)
    tputs: Matrix
    indexes: tuple[list[int], list[int]]
    created: float
    e2e: Matrix
    ttft: Matrix
    slos: dict[str, float]

    @model_validator(mode="after")
    def _shaped(self) -> "GpuProfile":
        outputs, inputs = map(len, self.indexes)
        for name in ("tputs", "e2e", "ttft"):
            matrix: Matrix = getattr(self, name)
            if len(matrix) != outputs or any(len(row) != inputs for row in matrix):
                raise ValueError(f"{name} must have {outputs} rows of {inputs}, as indexes has")
            if min(map(min, matrix)) < 0:
                raise ValueError(f"{name} must not be negative")
        for ticks in self.indexes:
            if ticks != sorted(set(ticks)) or ticks[0] < 1:
                raise ValueError("indexes must ascend from 1 or more: their logarithms are compared")
        return self


def profile_documents(
    plan: PlanPayload, options: RenderOptions, latency: Latency, created_at: str
) -> list[Document]:
    """Return a profile of each pool, at the steps that the plan rests on: slower by its safety factor."""
    if plan.workload is None or not (plan.slo or plan.tiers):
        raise InputError(
            "the plan has no workload with objectives",
            "it was read from a Mélange file",
            "drop --autoscale, or plan from a spec",
        )
    created = datetime.fromisoformat(created_at).timestamp()
    return [
        Document(
            f"profiles/{pool_slug(row)}.json",
            _profile(row, latency[row.point], plan.workload, strictest(plan), options, created).model_dump(),
        )
        for row in pools(plan)
    ]


def check_profile(document: Document) -> None:
    """Raise InputError unless the optimizer can read a profile."""
    try:
        GpuProfile.model_validate(document.body)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the profile"
        raise InputError(
            f"{document.path} isn't what its target takes",
            f"{place}: {first['msg']}",
            "report it: hgpu rendered it",
        ) from error


def strictest(plan: PlanPayload) -> Slo:
    """Return the plan's objectives; of tiers the strictest of each, as a profile has no tiers."""
    found = [tier.slo for tier in plan.tiers] if plan.tiers else [plan.slo or Slo()]

    def hardest(objectives: Sequence[Objective | None]) -> Objective | None:
        there = [objective for objective in objectives if objective]
        if not there:
            return None
        return Objective(min(o.limit_s for o in there), max(o.percentile for o in there))

    return Slo(*(hardest([getattr(slo, name) for slo in found]) for name in ("ttft", "tpot", "e2e")))


def ticks(workload: Workload) -> tuple[list[int], list[int]]:
    """Return output and input lengths: the mean of each row and column of the workload's histogram."""

    def means(edge: str, tokens: str) -> list[int]:
        found = []
        for high in sorted({getattr(bucket, edge) for bucket in workload.buckets}):
            inside = [bucket for bucket in workload.buckets if getattr(bucket, edge) == high]
            weight = sum(bucket.share for bucket in inside) or 1.0
            mean = sum(bucket.share * getattr(bucket, tokens) for bucket in inside) / weight
            found.append(max(1, round(mean)))
        return sorted(set(found))

    return means("output_high", "output_tokens"), means("input_high", "input_tokens")


def _profile(
    row: AllocationRow,
    latency: LatencyModel,
    workload: Workload,
    slo: Slo,
    options: RenderOptions,
    created: float,
) -> GpuProfile:
    outputs, inputs = ticks(workload)
    cells = tuple(Bucket(i, i, o, o, i, o, 0.0, i + o) for o in outputs for i in inputs)
    careful = slower(latency, row.safety_factor)
    found = capacities(careful, row.point.engine, cells, slo)
    ttft_s, e2e_s = _means(careful, row, cells, found, slo)
    shape = (len(outputs), len(inputs))

    def matrix(values: Sequence[float]) -> Matrix:
        return [[_six_digits(value) for value in line] for line in np.reshape(values, shape)]

    return GpuProfile(
        gpu=f"{options.name}-{pool_slug(row)}",
        cost=_six_digits(row.usd_per_hour / row.engines),
        tputs=matrix([capacity.rate_rps for capacity in found]),
        indexes=(outputs, inputs),
        created=created,
        e2e=matrix(e2e_s),
        ttft=matrix(ttft_s),
        slos=_slos(slo),
    )


def _means(
    latency: LatencyModel,
    row: AllocationRow,
    cells: tuple[Bucket, ...],
    found: Sequence[Capacity],
    slo: Slo,
) -> tuple[list[float], list[float]]:
    """Mean TTFT and end-to-end latency at each rate; of a lone request where the rate is 0."""
    lengths = lengths_of(cells)
    ttft_s, e2e_s = [], []
    for number, (cell, capacity) in enumerate(zip(cells, found, strict=True)):
        rates = np.zeros((1, len(cells)))
        rates[0, number] = capacity.rate_rps or 1e-5
        state = steady_state(latency, row.point.engine, lengths, rates, *percentiles(slo))
        first = float(state.ttft_mean_s[0, number])
        each = float(state.tpot_mean_s[0, number])
        if not np.isfinite(first + each):
            first, each = capacity.lone_ttft_s, capacity.lone_tpot_s
        ttft_s.append(first)
        e2e_s.append(first + (cell.output_tokens - 1) * each)
    return ttft_s, e2e_s


def _six_digits(value: float) -> float:
    return float(f"{value:.6g}")


def _slos(slo: Slo) -> dict[str, float]:
    named = {name: getattr(slo, name) for name in ("ttft", "tpot", "e2e") if getattr(slo, name)}
    limits = {name: objective.limit_s for name, objective in named.items()}
    return {"percentile": max(objective.percentile for objective in named.values())} | limits
