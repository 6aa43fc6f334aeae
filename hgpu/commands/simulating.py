"""What `hgpu simulate` calls: load the latency models of a plan and a trace, prove the plan, save."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from hgpu.artifacts.digest import file_digest
from hgpu.artifacts.manifest import InputRef
from hgpu.artifacts.payloads.latency import LatencyPayload
from hgpu.artifacts.payloads.plan import PlanPayload
from hgpu.artifacts.payloads.simulation import SimulationPayload
from hgpu.artifacts.resolve import resolve
from hgpu.artifacts.reuse import save_once
from hgpu.artifacts.store import Artifact, Draft
from hgpu.core.errors import ArtifactError
from hgpu.core.operating_point import OperatingPoint
from hgpu.core.phases import PhaseOptions
from hgpu.report.output import note
from hgpu.report.progress import progress_of
from hgpu.simulator.balance import check_balancer
from hgpu.simulator.phasing import check_phases
from hgpu.simulator.proof import ProofOptions, fleet_of, planned_arrivals, promise_of, prove
from hgpu.workloads.readers import read_trace

LatencyArtifact = Artifact[LatencyPayload]


def prove_plan(
    plan: Artifact[PlanPayload], root: Path, trace: Path | None, options: ProofOptions
) -> Artifact[SimulationPayload]:
    """Replay a trace, or the plan's own workload, against the plan's fleet, and keep what came of it."""
    check_balancer(options.balance)
    promise = promise_of(plan.payload)
    latency = plan_latency(plan, root)
    fleet = fleet_of(plan.payload, {point: made.payload.latency for point, made in latency.items()})
    arrivals = planned_arrivals(promise, read_trace(trace) if trace else None, options)
    note(f"{arrivals.requests} requests: {arrivals.source}")
    with progress_of("simulate") as progress:
        payload = prove(promise, fleet, arrivals, options, progress)
    files = [InputRef(role="trace", kind="file", digest=file_digest(trace))] if trace else []
    inputs = [plan.as_input("plan"), *(made.as_input(f"latency {p.name}") for p, made in latency.items())]
    drawn = {"phases": asdict(options.phases)} if options.phases else {}
    draft = Draft("simulation", plan.payload.service, payload, inputs=[*inputs, *files], options=drawn)
    return save_once(root, draft)


def phases_of(ageing_tok_per_s: float | None, tpot_s: float | None) -> PhaseOptions | None:
    """Return the policy that the options ask for, None for vLLM's own. Raises InputError for a bad number."""
    if ageing_tok_per_s is None and tpot_s is None:
        return None
    phases = PhaseOptions(ageing_tok_per_s, tpot_s)
    check_phases(phases)
    return phases


def plan_latency(plan: Artifact[PlanPayload], root: Path) -> dict[OperatingPoint, LatencyArtifact]:
    """Return the latency models of a plan's pools, from the plan's own inputs. Raises ArtifactError."""
    found, lost = latency_of_inputs(plan, root)
    for pool in plan.payload.allocation:
        if pool.point not in found:
            raise ArtifactError(
                f"no latency model of pool '{pool.pool}' of plan {plan.short}",
                f"of the plan's inputs, {', '.join(lost) or 'none'} can't be found or read under {root}",
                "name the folder that the plan was made in with --results, or plan again",
            )
    return {pool.point: found[pool.point] for pool in plan.payload.allocation}


def latency_of_inputs(
    plan: Artifact[PlanPayload], root: Path
) -> tuple[dict[OperatingPoint, LatencyArtifact], list[str]]:
    """Return the latency models of a plan's pools among its inputs, and the digests of unreadable ones."""
    made: list[LatencyArtifact] = []
    lost = []
    for row in plan.manifest.inputs:
        if row.kind == "latency":
            try:
                artifact: Artifact[Any] = resolve(root, row.digest, "latency")
            except ArtifactError:
                lost.append(row.digest[:12])
                continue
            made.append(artifact)
    points = {pool.point for pool in plan.payload.allocation}
    found = {point: one for point in points for one in made if one.payload.point.times(point)}
    return found, lost
