"""A whole load test: opens its journal, asks what has to be known, sends the points, saves them."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from hgpu.artifacts.digest import digest_of
from hgpu.artifacts.payloads.load import LoadPayload, LoadPoint
from hgpu.artifacts.store import Artifact, save
from hgpu.bench.arrivals import Load
from hgpu.bench.draft import Setting, identity_of, load_draft
from hgpu.bench.point_journal import point_journal
from hgpu.bench.probe import wording_for
from hgpu.bench.prompts import Wording
from hgpu.bench.search import Search, SearchOptions
from hgpu.bench.selftest import known_selftest
from hgpu.bench.session import Say, Session, Subject
from hgpu.runtime.completion import served_engine


def run(subject: Subject, loads: Sequence[Load], setting: Setting, say: Say) -> Artifact[LoadPayload]:
    """Send each load once, and save what came of them. What was finished before a crash isn't sent again."""
    with _session(subject, {"loads": [asdict(load) for load in loads]}, setting, say) as session:
        points = [session.measure(number, load)[0] for number, load in enumerate(loads)]
        return _saved(session, loads, points, setting, None)


def search(subject: Subject, options: SearchOptions, setting: Setting, say: Say) -> Artifact[LoadPayload]:
    """Look for the highest rate that keeps the objectives, and save every point that was sent."""
    sent: list[Load] = []
    with _session(subject, {"search": asdict(options)}, setting, say) as session:

        def measure(number: int, load: Load) -> LoadPoint:
            sent.append(load)
            return session.measure(number, load)[0]

        looked = Search(options, measure, subject.rules.max_error_rate)
        looked.run()
        return _saved(session, sent, looked.points, setting, looked)


@contextmanager
def _session(subject: Subject, aim: Mapping[str, Any], setting: Setting, say: Say) -> Iterator[Session]:
    key = digest_of({**identity_of(subject, setting.trace_path), **aim})

    def header() -> dict[str, Any]:
        engine = served_engine(subject.target.url)
        return {"salt": setting.salt, "engine": engine, "wording": asdict(wording_for(subject.target))}

    known = known_selftest(setting.results) if setting.with_selftest else None
    with point_journal(setting.results, key, header) as journal:
        if journal.finished:
            setting.note(f"going on after {journal.finished} finished points")
        yield Session(
            subject=subject,
            wording=Wording(**journal.header["wording"]),
            salt=int(journal.header["salt"]),
            engine=str(journal.header["engine"]),
            journal=journal,
            selftest=known,
            cores=len(os.sched_getaffinity(0)),
            workers=setting.workers,
            say=say,
        )


def _saved(
    session: Session,
    loads: Sequence[Load],
    points: Sequence[LoadPoint],
    setting: Setting,
    looked: Search | None,
) -> Artifact[LoadPayload]:
    artifact = save(setting.results, load_draft(session, loads, points, setting, looked))
    session.journal.forget()
    raised = artifact.manifest.options["raised_lengths"]
    if raised:
        setting.note(f"{raised} lengths were raised: to 1 token, or to what the chat template needs")
    return artifact
