"""What `hgpu plan` calls: load a spec and its latency models, plan each cell, save the plans."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hgpu.artifacts.digest import file_digest
from hgpu.artifacts.manifest import Environment, InputRef
from hgpu.artifacts.payloads.plan import PlanPayload
from hgpu.artifacts.store import Artifact, Draft, save
from hgpu.catalog.offers import price_date
from hgpu.core.errors import Infeasible
from hgpu.core.provenance import Provenance
from hgpu.latency.select import Selection, select_latency
from hgpu.report.output import note
from hgpu.solvers.melange import read_melange
from hgpu.solvers.plan import Candidates, Planned, make_plan, plan_of_problem
from hgpu.solvers.sweep import Cell, combinations
from hgpu.specs.load import load_spec
from hgpu.specs.service import Service, service_of


def spec_plans(
    path: Path,
    sweeps: Sequence[str],
    root: Path,
    refs: Sequence[str],
    estimate: bool,
    gap: float,
    time_limit_s: float,
) -> list[Cell]:
    """Plan every combination of swept values; an infeasible one keeps its reason."""
    cells = []
    said: set[str] = set()
    for values in combinations(sweeps):
        service = service_of(load_spec(path, values))
        selection = select_latency(root, service.model, service.points, refs, estimate)
        _say_sources(selection, said)
        try:
            planned = make_plan(service, _candidates(selection), gap, time_limit_s)
            cells.append(Cell(values, _save(root, service, selection, planned, {"gap": gap})))
        except Infeasible as error:
            cells.append(Cell(values, None, error))
    return cells


def melange_plan(path: Path, root: Path) -> Artifact[PlanPayload]:
    """Plan a published Mélange configuration and keep it."""
    planned = plan_of_problem(read_melange(path), f"melange {path.stem}")
    file = InputRef(role="melange", kind="file", digest=file_digest(path))
    draft = Draft("plan", f"melange-{path.stem}", planned.payload, inputs=[file], timings=planned.timings)
    return save(root, draft)


def _candidates(selection: Selection) -> Candidates:
    models = {point: artifact.payload.latency for point, artifact in selection.chosen.items()}
    return Candidates(models, selection.refused)


def _save(
    root: Path, service: Service, selection: Selection, planned: Planned, options: dict[str, Any]
) -> Artifact[PlanPayload]:
    inputs = [artifact.as_input(f"latency {point.name}") for point, artifact in selection.chosen.items()]
    return save(
        root,
        Draft(
            "plan",
            f"{service.name}-{service.workload.rate_rps:g}rps",
            planned.payload,
            inputs=[*inputs, *service.files],
            options=options,
            environment=Environment(
                price_date=price_date(service.offers), model_revision=service.model.digest[:12]
            ),
            timings=planned.timings,
        ),
    )


def _say_sources(selection: Selection, said: set[str]) -> None:
    """Tell once, on stderr, which latency model stands behind each operating point."""
    for point, artifact in selection.chosen.items():
        latency = artifact.payload.latency
        what = (
            f"error {latency.median_error:.1%}"
            if latency.provenance is Provenance.FITTED
            else "no measurement"
        )
        line = f"{point.name}: {latency.provenance} latency model {artifact.short} ({what})"
        if line not in said:
            said.add(line)
            note(line)
