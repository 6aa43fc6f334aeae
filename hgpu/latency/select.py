"""Which latency model a plan uses for each operating point: a fitted one, or an estimate."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hgpu.artifacts.manifest import Environment, Validity
from hgpu.artifacts.payloads.latency import LatencyPayload, PhaseError
from hgpu.artifacts.payloads.profile import SAMPLES_FILE, TELEMETRY_FILE, ProfilePayload
from hgpu.artifacts.resolve import entries, resolve, under_ci
from hgpu.artifacts.reuse import save_once
from hgpu.artifacts.store import Artifact, Draft, load
from hgpu.catalog.gpus import resolve_gpu
from hgpu.core.copies import ExpertCopies
from hgpu.core.errors import Infeasible, InputError
from hgpu.core.model import ModelSpec
from hgpu.core.operating_point import Mode, OperatingPoint, timed_points
from hgpu.core.provenance import Provenance
from hgpu.latency.expert_loads import Routing
from hgpu.latency.fit import fit
from hgpu.latency.offload import copies_of, routing_for
from hgpu.profilers.estimate import estimate
from hgpu.profilers.result import ProfileResult
from hgpu.profilers.samples import Sample, from_parquet, noise_of, to_parquet
from hgpu.profilers.telemetry_summary import RunTelemetry, from_json, to_json

LatencyArtifact = Artifact[LatencyPayload]
ESTIMATED_MODES = (Mode.MIXED, Mode.OFFLOAD)  # the others need a measured latency model
REQUEST_S = "request_s"  # among a profile's assumptions, where the profiler measured it


@dataclass(frozen=True, slots=True)
class Selection:
    """A latency artifact for each operating point, and why some points have none."""

    chosen: dict[OperatingPoint, LatencyArtifact]
    refused: dict[OperatingPoint, str]


def select_latency(
    root: Path,
    model: ModelSpec,
    points: Sequence[OperatingPoint],
    refs: Sequence[str],
    only_estimates: bool,
    routing: Routing | None = None,
) -> Selection:
    """Return the latency model of each point: of the one that is timed for it (`timed_points`).

    Named `refs` come first and must fit the model and a point; then, unless `only_estimates`,
    the newest fit of measurements in the store; what is left is estimated and says so. Under
    CI=true a run doesn't take what happens to be newest: it must name it or ask for estimates. Estimates
    of mode `offload` replay `routing`, uniform where none is given.
    """
    timing = timed_points(points)
    timed = list(dict.fromkeys(timing.values()))
    chosen = _named(root, model, timed, refs)
    refused: dict[OperatingPoint, str] = {}
    for point in timed:
        if point in chosen:
            continue
        found = None if only_estimates else _newest(root, model, point)
        if found is None and point.mode not in ESTIMATED_MODES:
            refused[point] = f"there is no latency model of mode '{point.mode}', and none can be estimated"
            continue
        try:
            chosen[point] = found or estimated(root, model, point, routing)
        except Infeasible as error:
            refused[point] = error.why
    return Selection(
        {point: chosen[timing[point]] for point in points if timing[point] in chosen},
        {point: refused[timing[point]] for point in points if timing[point] in refused},
    )


def estimated(
    root: Path, model: ModelSpec, point: OperatingPoint, routing: Routing | None = None
) -> LatencyArtifact:
    """Estimate a point, keep the profile and the fit as artifacts, and return the fit."""
    result = estimate(model, resolve_gpu(point.gpu), point)
    profile = save_once(root, profile_draft(model, point, result, {}, routing))
    return save_once(root, latency_draft(profile, routing))


def unfitted(root: Path) -> list[Artifact[ProfilePayload]]:
    """Return the valid profiles that no latency model was made from yet, oldest first."""
    fitted = {row.digest for entry in entries(root, "latency") for row in load(entry.path).manifest.inputs}
    profiles = [load(entry.path) for entry in reversed(entries(root, "profile"))]
    return [p for p in profiles if p.digest not in fitted and p.manifest.validity.valid]


def profile_draft(
    model: ModelSpec,
    point: OperatingPoint,
    result: ProfileResult,
    options: dict[str, Any],
    routing: Routing | None = None,
) -> Draft[ProfilePayload]:
    """Return a profiler's result as an artifact to save; in mode `offload` with the routing of its cache."""
    payload = ProfilePayload(
        model=model,
        point=point,
        profiler=result.profiler,
        provenance=result.provenance,
        samples=len(result.samples),
        kv_capacity_tokens=result.kv_capacity_tokens,
        noise=noise_of(result.samples),
        assumptions=dict(result.assumptions),
    )
    return Draft(
        "profile",
        f"{Path(model.name).name}-{point.name}",
        payload,
        inputs=list(routing.inputs) if routing and point.experts else [],
        options=options,
        environment=Environment(
            gpu=point.gpu,
            driver=result.driver or None,
            engine=result.engine or None,
            machine=result.machine or None,
        ),
        validity=Validity(reasons=list(result.problems)),
        timings={"profile_s": result.seconds},
        files={SAMPLES_FILE: to_parquet(result.samples), **_telemetry_file(result)},
    )


def _telemetry_file(result: ProfileResult) -> dict[str, bytes]:
    return {TELEMETRY_FILE: to_json(result.telemetry)} if result.telemetry else {}


def samples_of(profile: Artifact[ProfilePayload]) -> list[Sample]:
    """Return the step samples of a profile."""
    return from_parquet((profile.path / SAMPLES_FILE).read_bytes())


def telemetry_of(profile: Artifact[ProfilePayload]) -> list[RunTelemetry]:
    """Return what the cards did in each run of a profile; empty where none was read."""
    path = profile.path / TELEMETRY_FILE
    return from_json(path.read_bytes()) if path.is_file() else []


def latency_draft(profile: Artifact[ProfilePayload], routing: Routing | None = None) -> Draft[LatencyPayload]:
    """Fit a profile and return the latency model as an artifact to save.

    An estimate of mode `offload` is of the computation alone: what copying makes of it is added here, from
    replaying the cache on `routing`, uniform where none is given. Measured steps have their copies in them.
    """
    payload = profile.payload
    result = fit(samples_of(profile), payload.model, payload.kv_capacity_tokens, payload.provenance)
    copies = _copies(profile.payload, routing)
    return Draft(
        "latency",
        f"{Path(payload.model.name).name}-{payload.point.name}",
        LatencyPayload(
            model=payload.model,
            point=payload.point,
            latency=replace(
                result.latency,
                step=replace(result.latency.step, copies=copies),
                request_s=payload.assumptions.get(REQUEST_S, 0.0),
            ),
            errors=[
                PhaseError(phase=row.phase, samples=row.samples, median=row.median, p90=row.p90)
                for row in result.errors
            ],
            largest_step_tokens=result.largest_step_tokens,
            largest_step_context_tokens=result.largest_step_context_tokens,
        ),
        inputs=[profile.as_input("profile"), *(routing.inputs if routing and copies else ())],
        environment=profile.manifest.environment,
        validity=profile.manifest.validity,
    )


def _copies(profile: ProfilePayload, routing: Routing | None) -> ExpertCopies | None:
    """Return what copying experts adds to the steps of a profile that was estimated without."""
    if profile.point.mode is not Mode.OFFLOAD or profile.provenance is not Provenance.ESTIMATED:
        return None
    gpu = resolve_gpu(profile.point.gpu)
    return copies_of(profile.model, gpu, profile.point, routing_for(profile.model, routing))


def _named(
    root: Path, model: ModelSpec, points: Sequence[OperatingPoint], refs: Sequence[str]
) -> dict[OperatingPoint, LatencyArtifact]:
    named: dict[OperatingPoint, LatencyArtifact] = {}
    for ref in refs:
        artifact: LatencyArtifact = resolve(root, ref, "latency", lambda a: _fits(a, model, points))
        if not _fits(artifact, model, points):
            payload = artifact.payload
            raise InputError(
                f"latency model {artifact.short} doesn't fit the spec",
                f"it is of {payload.model.name} on {payload.point.name} with {payload.point.engine}",
                "give one of the spec's model, GPU types and engine options, or profile and fit again",
            )
        named[artifact.payload.point] = artifact
    return named


def _fits(artifact: LatencyArtifact, model: ModelSpec, points: Sequence[OperatingPoint]) -> bool:
    return artifact.payload.model.digest == model.digest and artifact.payload.point in points


def _newest(root: Path, model: ModelSpec, point: OperatingPoint) -> LatencyArtifact | None:
    for entry in entries(root, "latency"):
        artifact: LatencyArtifact = load(entry.path)
        measured = artifact.payload.latency.provenance is Provenance.FITTED
        if measured and artifact.manifest.validity.valid and _fits(artifact, model, [point]):
            if under_ci():
                raise InputError(
                    f"a fit of {point.name} is in the store, and CI=true",
                    "a CI run must not depend on which artifact happens to be newest",
                    f"name it with --latency {artifact.short}, or pass --estimate to plan from estimates",
                )
            return artifact
    return None
