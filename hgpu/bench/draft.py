"""Points of load as an artifact: payload, requests, what was asked for, and whether it may be believed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hgpu.artifacts.digest import file_digest
from hgpu.artifacts.manifest import Environment, Validity
from hgpu.artifacts.payloads.load import REQUESTS_FILE, LoadPayload, LoadPoint
from hgpu.artifacts.store import Draft
from hgpu.bench.arrivals import Load
from hgpu.bench.labels import comparability, workload_digest
from hgpu.bench.point_journal import parquet_bytes
from hgpu.bench.search import Search
from hgpu.bench.selftest import machine
from hgpu.bench.session import Session, Subject, plan_of


@dataclass(frozen=True, slots=True)
class Setting:
    """How a test is run, beside what is sent. `salt` is new for each test: see `prompts`."""

    results: Path
    salt: int
    note: Callable[[str], None]
    workers: int | None = None
    with_selftest: bool = True
    trace_path: Path | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


def identity_of(subject: Subject, trace: Path | None) -> dict[str, Any]:
    """Return what makes a test this one and no other, but for its points."""
    return {
        "target": asdict(subject.target),
        "lengths": subject.lengths,
        "rules": asdict(subject.rules),
        "trace": file_digest(trace) if trace else "",
    }


def load_draft(
    session: Session,
    loads: Sequence[Load],
    points: Sequence[LoadPoint],
    setting: Setting,
    looked: Search | None,
) -> Draft[LoadPayload]:
    """Return the draft of all points that a session has sent."""
    subject, labels = session.subject, setting.labels
    target, identity = subject.target, identity_of(subject, setting.trace_path)
    raised = sum(plan_of(subject, load, session.wording).raised for load in loads)
    return Draft(
        "load",
        target.model.rpartition("/")[2],
        _payload(session, loads, points, setting, looked),
        options={
            **identity,
            "wording": asdict(session.wording),
            "salt": session.salt,
            "workers": setting.workers,
            "raised_lengths": raised,
            "search": asdict(looked.options) if looked else None,
        },
        environment=Environment(
            gpu=labels.get("gpu"),
            driver=labels.get("driver"),
            engine=session.engine or None,
            model_revision=labels.get("model_revision"),
            machine=machine(),
        ),
        validity=search_validity(looked) if looked else run_validity(points),
        files={REQUESTS_FILE: _requests(session, len(points))},
    )


def run_validity(points: Sequence[LoadPoint]) -> Validity:
    """Return valid where every point is."""
    reasons = [f"{point.name}: {reason}" for point in points for reason in point.validity.reasons]
    return Validity(valid=not reasons, reasons=reasons)


def search_validity(looked: Search) -> Validity:
    """Return invalid where a rate didn't pass because of the harness, or no point at all was valid.

    Errors of an overloaded server are what a search looks for: they void a point, not the search.
    """
    any_valid = any(point.validity.valid for point in looked.points)
    return run_validity(looked.spoiled if any_valid else looked.points)


def _payload(
    session: Session,
    loads: Sequence[Load],
    points: Sequence[LoadPoint],
    setting: Setting,
    looked: Search | None,
) -> LoadPayload:
    subject, target = session.subject, session.subject.target
    trace_sha256 = file_digest(setting.trace_path) if setting.trace_path else ""
    # The rates that a search sends depend on the server: they can't be what must be the same.
    workload = workload_digest(subject.lengths, () if looked else loads, trace_sha256)
    return LoadPayload(
        url=target.url,
        api=target.api.value,
        model=target.model,
        lengths=subject.trace.name if subject.trace else subject.lengths,
        slo=subject.rules.slo,
        points=list(points),
        selftest=session.selftest,
        comparability=comparability(setting.labels, session.engine, target.model, target.api.value, workload),
        search=looked.answer if looked else None,
    )


def _requests(session: Session, points: int) -> bytes:
    import pyarrow as pa

    found = [session.journal.get(number) for number in range(points)]
    tables = [known[1].replace_schema_metadata(None) for known in found if known]
    return parquet_bytes(pa.concat_tables(tables))
