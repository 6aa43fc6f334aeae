"""A load test in progress: sends one point after the other, each once, and keeps what is finished."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hgpu.artifacts.payloads.load import LoadPoint, Selftest
from hgpu.bench.arrivals import TRACE, Load, Schedule, replayed, schedule
from hgpu.bench.play import Job
from hgpu.bench.point import Rules, load_point
from hgpu.bench.point_journal import PointJournal
from hgpu.bench.prompts import Wording
from hgpu.bench.target import Target
from hgpu.bench.workers import send, workers_for
from hgpu.workloads.trace import Trace

Say = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class Subject:
    """What is sent, but for how much of it: lengths of a named distribution, or a trace's own."""

    target: Target
    lengths: str
    rules: Rules
    trace: Trace | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """Measures points. `salt` makes its prompts its own; `workers` None: as many as the rate needs."""

    subject: Subject
    wording: Wording
    salt: int
    engine: str
    journal: PointJournal
    selftest: Selftest | None
    cores: int
    workers: int | None
    say: Say

    def measure(self, number: int, load: Load) -> tuple[LoadPoint, Any]:
        """Return a point and the table of its requests, from the journal where it is finished."""
        known = self.journal.get(number)
        if known:
            return known
        subject, plan = self.subject, plan_of(self.subject, load, self.wording)
        name = load.name if subject.trace is None else f"{subject.trace.name} {load.name}".strip()
        requests = 0 if plan.intended_s is None else len(plan.intended_s)
        rate_rps = requests / max(plan.duration_s, 1e-9) if requests else None
        workers = self.workers or workers_for(rate_rps, self.selftest, self.cores)

        def finished(done: int) -> None:
            self.say(done, requests or done + 1, f"requests at {name}")

        job = Job(subject.target, self.wording, plan, (self.salt, load.seed, number))
        outcomes = send(job, workers, finished)
        return self.journal.put(number, load_point(load, name, plan, outcomes, subject.rules), outcomes)


def plan_of(subject: Subject, load: Load, wording: Wording) -> Schedule:
    """Return the requests of a load. No prompt is shorter than what the chat template adds and one token."""
    if load.arrivals == TRACE and subject.trace:
        plan = replayed(subject.trace, load.rate_rps, load.duration_s or None, load.seed)
    else:
        plan = schedule(load, subject.lengths)
    least = wording.template_tokens + 1
    short = int((plan.input_tokens < least).sum())
    if not short:
        return plan
    return replace(plan, input_tokens=np.maximum(plan.input_tokens, least), raised=plan.raised + short)
