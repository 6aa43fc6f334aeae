"""What each deterministic artifact says, and what must be the same for two of them to be compared."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hgpu.artifacts.digest import digest_of
from hgpu.artifacts.payloads.latency import LatencyPayload
from hgpu.artifacts.payloads.plan import PlanPayload
from hgpu.artifacts.payloads.simulation import RunRow, SimulationPayload
from hgpu.artifacts.store import Artifact


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that an artifact says. `lower_is_better` is None where it can only be the same or another."""

    case: str
    name: str
    unit: str
    value: float | str | None
    lower_is_better: bool | None


@dataclass(frozen=True, slots=True)
class Exact:
    """How artifacts of a kind are compared: what must be the same, and what they say."""

    keys: Callable[[Artifact[Any]], Mapping[str, str]]
    facts: Callable[[Artifact[Any]], Sequence[Fact]]


def _digest(value: Any) -> str:
    return digest_of(value)[:12]


def _plan_keys(artifact: Artifact[PlanPayload]) -> dict[str, str]:
    payload = artifact.manifest.payload
    names = ("model", "slo", "tiers", "workload")
    return {
        "service": artifact.payload.service,
        "confidence": f"{artifact.payload.confidence:g}",
        "prices": artifact.manifest.environment.price_date or "",
        **{name: _digest(payload[name]) for name in names},
    }


def _plan_facts(artifact: Artifact[PlanPayload]) -> list[Fact]:
    plan = artifact.payload
    fleet = " + ".join(f"{row.count}× {row.offer} as {row.point.name}" for row in plan.allocation)
    held = [] if plan.proof is None else [Fact("", "proved", "share", float(plan.proof.held), False)]
    return [
        Fact("", "cost", "USD/h", plan.cost_usd_per_hour + plan.idle_usd_per_hour, True),
        Fact("", "served", "share", plan.served, False),
        Fact("", "proven optimal", "share", float(plan.status == "optimal"), False),
        Fact("", "fleet", "", fleet, None),
        *held,
    ]


def _latency_keys(artifact: Artifact[LatencyPayload]) -> dict[str, str]:
    samples = sorted(row.digest[:12] for row in artifact.manifest.inputs)
    return {
        "model": _digest(artifact.manifest.payload["model"]),
        "point": artifact.payload.point.name,
        "samples": ", ".join(samples),
    }


def _latency_facts(artifact: Artifact[LatencyPayload]) -> list[Fact]:
    latency = artifact.payload.latency
    whole = [
        Fact("all", "median error", "share", latency.median_error, True),
        Fact("all", "p90 error", "share", latency.p90_error, True),
    ]
    return whole + [
        Fact(row.phase, f"{name} error", "share", value, True)
        for row in artifact.payload.errors
        for name, value in (("median", row.median), ("p90", row.p90))
    ]


def _simulation_keys(artifact: Artifact[SimulationPayload]) -> dict[str, str]:
    payload = artifact.payload
    return {
        "service": payload.service,
        "arrivals": payload.arrivals,
        "balance": payload.balance,
        "seed": str(payload.seed),
    }


def _simulation_facts(artifact: Artifact[SimulationPayload]) -> list[Fact]:
    return [fact for run in artifact.payload.runs for fact in _run_facts(run)]


def _run_facts(run: RunRow) -> list[Fact]:
    case = f"{run.multiplier:g}×" + (f", one {run.lost} lost" if run.lost else "")
    kept = [
        Fact(case, f"{row.tier and row.tier + ' '}{row.objective} attainment", "share", row.attainment, False)
        for row in run.objectives
    ]
    return [*kept, Fact(case, "goodput share", "share", run.goodput_share, False)]


EXACT: Mapping[str, Exact] = {
    "plan": Exact(_plan_keys, _plan_facts),
    "latency": Exact(_latency_keys, _latency_facts),
    "simulation": Exact(_simulation_keys, _simulation_facts),
}
