"""What `hgpu plan` calls: load specs and their latency models, plan each cell, save the plans."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hgpu.artifacts.digest import file_digest
from hgpu.artifacts.manifest import Environment, InputRef
from hgpu.artifacts.payloads.plan import PlanPayload
from hgpu.artifacts.resolve import resolve
from hgpu.artifacts.store import Artifact, Draft, save
from hgpu.catalog.offers import price_date
from hgpu.commands.beside import Beside, beside, rentals
from hgpu.commands.plan_notes import once, say_age, say_memory, say_sources
from hgpu.commands.solved_from import solved_from
from hgpu.core.errors import Infeasible, InputError
from hgpu.core.operating_point import Mode
from hgpu.latency.offload_points import with_caches
from hgpu.latency.routing_source import named_routing
from hgpu.latency.select import Selection, select_latency
from hgpu.report.output import note
from hgpu.report.progress import progress_of
from hgpu.simulator.proof import Promise, ProofOptions, planned_arrivals
from hgpu.solvers.demand import Candidates, Change, Demand
from hgpu.solvers.explain import explain
from hgpu.solvers.melange import read_melange
from hgpu.solvers.plan import Planned, make_plans, plan_of_problem
from hgpu.solvers.prove import Prover
from hgpu.solvers.refine import Refiner, memo_under
from hgpu.solvers.sweep import Cell, combinations
from hgpu.specs.load import load_spec
from hgpu.specs.serve import ServeSpec
from hgpu.specs.service import Service, service_of
from hgpu.workloads.readers import read_trace
from hgpu.workloads.trace import Trace


@dataclass(frozen=True, slots=True)
class Again:
    """The plan that is solved again, and how many machines of some offers (`name@region`) may be used."""

    parent: InputRef
    at_most: dict[str, int]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user wants planned, and how; `beside` names what runs at the same time."""

    specs: Sequence[Path]
    root: Path
    refs: Sequence[str] = ()
    estimate: bool = False
    gap: float = 0.0
    time_limit_s: float = 60.0
    confidence: float = 0.9
    explain: bool = False
    refine: bool = False
    prove: bool = False
    trace: Path | None = None
    requests: int | None = None
    current: str = ""
    change_usd_per_hour: float = 0.0
    again: Again | None = None
    beside: Sequence[str] = ()


def spec_plans(asked: Asked, sweeps: Sequence[str] = ()) -> list[Cell]:
    """Plan every combination of swept values; an infeasible one keeps its reason."""
    cells = []
    said: set[str] = set()
    for values in combinations(sweeps):
        try:
            cells += [Cell(values, artifact) for artifact in _plans(asked, values, said)]
        except Infeasible as error:
            cells.append(Cell(values, None, error))
    return cells


def melange_plan(path: Path, root: Path) -> Artifact[PlanPayload]:
    """Plan a published Mélange configuration and keep it."""
    planned = plan_of_problem(read_melange(path), f"melange {path.stem}")
    file = InputRef(role="melange", kind="file", digest=file_digest(path))
    draft = Draft("plan", f"melange-{path.stem}", planned.payload, inputs=[file], timings=planned.timings)
    return save(root, draft)


def _plans(asked: Asked, values: dict[str, Any], said: set[str]) -> list[Artifact[PlanPayload]]:
    """Plan all specs together and keep a plan of each."""
    specs = [load_spec(path, values) for path in asked.specs]
    services = [service_of(spec) for spec in specs]
    keys = [path.stem for path in asked.specs] if len(services) > 1 else [""]
    if len(set(keys)) < len(keys):
        raise InputError("two specs have the same file name", ", ".join(keys), "name them apart")
    return plan_services(asked, services, specs, keys, said)


def plan_services(
    asked: Asked,
    services: Sequence[Service],
    specs: Sequence[ServeSpec],
    keys: Sequence[str],
    said: set[str],
) -> list[Artifact[PlanPayload]]:
    """Plan services together, each made from its spec, and keep a plan of each."""
    _require_simulation(asked, services)
    others = beside(asked.root, asked.beside)
    services = [replace(service, beside=tuple(rentals(others))) for service in services]
    cached = [
        with_caches(service, named_routing(asked.root, service.routing), once(said)) for service in services
    ]
    services = [one.service for one in cached]
    selections = [
        select_latency(asked.root, service.model, service.points, asked.refs, asked.estimate, one.routing)
        for service, one in zip(services, cached, strict=True)
    ]
    demands = []
    for service, selection, key in zip(services, selections, keys, strict=True):
        say_sources(selection, asked.confidence, said)
        say_age(service, said)
        say_memory(service, said)
        models = {point: artifact.payload.latency for point, artifact in selection.chosen.items()}
        demands.append(Demand(service, Candidates(models, selection.refused, asked.confidence), key))
    change = _change(asked, keys)
    if asked.refine:
        with progress_of("simulating") as progress:
            memo = memo_under(asked.root)
            refiner = Refiner(demands, memo, progress, asked.gap, asked.time_limit_s, change)
            demands = refiner.refine()
    if asked.prove:
        arrivals = [_arrivals(service, asked) for service in services]
        prover = Prover(demands, arrivals, asked.gap, asked.time_limit_s, change)
        planned = prover.prove()
        demands = [demand.with_headroom(prover.headroom) for demand in demands]
    else:
        planned = make_plans(demands, asked.gap, asked.time_limit_s, change)
    if asked.explain:
        planned = [_explained(plan, demand, asked.gap) for plan, demand in zip(planned, demands, strict=True)]
    # Services that were planned together share limits: none can be solved again alone.
    files = [solved_from(specs[0], services[0].offers)] if len(specs) == 1 else [{} for _ in specs]
    return [
        _save(asked, service, selection, plan, kept, others)
        for service, selection, plan, kept in zip(services, selections, planned, files, strict=True)
    ]


def _require_simulation(asked: Asked, services: Sequence[Service]) -> None:
    """Refuse to price mode `pd` by a closed form: there is none."""
    if not asked.refine and any(point.mode is Mode.PD for service in services for point in service.points):
        raise InputError(
            "mode 'pd' is in the spec's modes, and its capacity isn't known",
            "what its scheduler gains is found by simulation only",
            "add --refine, or leave 'pd' out of modes",
        )


def _arrivals(service: Service, asked: Asked) -> Trace:
    """Return the requests to prove a plan on: a trace at the planned rate, else Poisson arrivals."""
    file = asked.trace or service.trace
    promise = Promise(service.name, service.tiers, service.workload, service.workload.rate_rps)
    trace = planned_arrivals(
        promise, read_trace(file) if file else None, ProofOptions(requests=asked.requests)
    )
    note(f"proving on {trace.requests} requests: {trace.source}")
    return trace


def _explained(planned: Planned, demand: Demand, gap: float) -> Planned:
    payload = planned.payload.model_copy(update={"explanation": explain(demand, gap)})
    return Planned(payload, planned.allocation, planned.timings)


def _change(asked: Asked, keys: Sequence[str]) -> Change | None:
    """Return what runs now, from the plan that it was launched with."""
    if not asked.current:
        return None
    plan: Artifact[PlanPayload] = resolve(asked.root, asked.current, "plan")
    running = {(keys[0], row.offer, row.region, row.point): row.engines for row in plan.payload.allocation}
    return Change(running, asked.change_usd_per_hour)


def _save(
    asked: Asked,
    service: Service,
    selection: Selection,
    planned: Planned,
    files: Mapping[str, bytes],
    others: Sequence[Beside],
) -> Artifact[PlanPayload]:
    inputs = [artifact.as_input(f"latency {point.name}") for point, artifact in selection.chosen.items()]
    inputs += [other.as_input("beside") for other in others]
    proved_on = (
        [InputRef(role="proved on", kind="file", digest=file_digest(asked.trace))] if asked.trace else []
    )
    again = asked.again
    options = {"gap": asked.gap, "confidence": asked.confidence, "refine": asked.refine}
    return save(
        asked.root,
        Draft(
            "plan",
            f"{service.name}-{service.workload.rate_rps:g}rps",
            planned.payload,
            inputs=[*inputs, *service.files, *proved_on, *([again.parent] if again else [])],
            options={**options, "at_most": again.at_most} if again else options,
            environment=Environment(
                price_date=price_date(service.offers), model_revision=service.model.digest[:12]
            ),
            timings=planned.timings,
            files=files,
        ),
    )
