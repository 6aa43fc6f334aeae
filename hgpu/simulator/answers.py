"""Answers about operating points: find the latency model of each, simulate its load, collect."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from hgpu.artifacts.resolve import resolve
from hgpu.core.errors import Infeasible, InputError
from hgpu.core.operating_point import EngineOptions, OperatingPoint
from hgpu.core.provenance import Provenance, weakest
from hgpu.core.step import LatencyModel
from hgpu.latency.select import LatencyArtifact
from hgpu.latency.sources import AUTO, Choice, choose, is_of
from hgpu.simulator.defaults import default_engine
from hgpu.simulator.harness import Figures, Harness, Question
from hgpu.specs.points import AskedPoint

WORTH_PROCESSES_S = 2.0  # starting them takes about half a second each
REQUESTS_PER_S = 30_000  # simulated in one process; only to tell a small job from a large one
CHUNKS_A_PROCESS = 16

Progress = Callable[[int, int, str], None]  # done, of how many, of what
Job = tuple[LatencyModel, EngineOptions, Question]


@dataclass(frozen=True, slots=True)
class Answer:
    """A point with its figures, or with the reason why there are none."""

    asked: AskedPoint
    choice: Choice | None = None
    figures: Figures | None = None
    error: str = ""

    @property
    def provenance(self) -> Provenance | None:
        """What the figures may claim: they are simulated, on a latency model with its own claim."""
        if self.choice is None or self.figures is None:
            return None
        return weakest([Provenance.SIMULATED, self.choice.artifact.payload.latency.provenance])


@dataclass(slots=True)
class Sources:
    """Finds latency models, once a (model, operating point), and says which it took."""

    root: Path
    say: Callable[[str], None]
    wanted: str = AUTO
    named: Sequence[LatencyArtifact] = ()
    found: dict[tuple[str, OperatingPoint], Choice | Infeasible] = field(default_factory=dict)

    def of(self, asked: AskedPoint, point: OperatingPoint) -> Choice:
        """Return the choice for a point, or raise Infeasible."""
        key = (asked.model.digest, point)
        if key not in self.found:
            self.found[key] = self._look(asked, point)
        found = self.found[key]
        if isinstance(found, Infeasible):
            raise found
        return found

    def _look(self, asked: AskedPoint, point: OperatingPoint) -> Choice | Infeasible:
        try:
            choice = choose(self.root, asked.model, point, self.wanted, self.named)
        except Infeasible as error:
            return error
        latency = choice.artifact.payload.latency
        known = f"error of a step {latency.median_error:.1%}"
        what = known if latency.provenance is Provenance.FITTED else "no measurement of an engine"
        extra = f"; {choice.note}" if choice.note else ""
        self.say(
            f"{asked.model_name} on {point.name} in {point.formats}: source {choice.source}, "
            f"latency model {choice.artifact.short} ({what}{extra})"
        )
        return choice


def named_fits(root: Path, refs: Sequence[str], asked: Sequence[AskedPoint]) -> list[LatencyArtifact]:
    """Return the latency models that the user names; each must be of a point that is asked about."""

    def fits(artifact: LatencyArtifact) -> bool:
        engine = artifact.payload.point.engine
        return any(is_of(artifact, a.model, a.operating_point(engine)) for a in asked)

    named = [resolve(root, ref, "latency", fits) for ref in refs]
    for artifact in named:
        if not fits(artifact):
            payload = artifact.payload
            raise InputError(
                f"latency model {artifact.short} is of no point that is asked about",
                f"it is of {payload.model.name} on {payload.point.name} in {payload.point.formats}",
                "name one of a model, GPU, tensor parallel degree and formats that you ask about",
            )
    return named


def answers(
    asked: Sequence[AskedPoint], sources: Sources, harness: Harness, progress: Progress
) -> list[Answer]:
    """Return an answer to each point, in order. Equal questions are simulated once."""
    chosen = [_chosen(point, sources) for point in asked]
    jobs = list(dict.fromkeys(job for _, job in chosen if job is not None))
    done: dict[Job, Figures | str] = {}
    for number, outcome in enumerate(_outcomes(jobs, harness)):
        done[jobs[number]] = outcome
        progress(len(done), len(jobs), "points")
    rows = []
    for point, (choice, job) in zip(asked, chosen, strict=True):
        result = choice if job is None else done[job]
        if isinstance(choice, Choice) and isinstance(result, Figures):
            rows.append(Answer(point, choice, result))
        else:
            rows.append(Answer(point, error=str(result)))
    return rows


def _chosen(asked: AskedPoint, sources: Sources) -> tuple[Choice | str, Job | None]:
    """Return the choice and the simulation of a point, or the reason why there is none."""
    total = asked.input_tokens + asked.output_tokens
    try:
        engine = default_engine(asked.model, asked.gpu, asked.tp, total, asked.concurrency)
        point = asked.operating_point(engine)
        choice = sources.of(asked, point)
    except Infeasible as error:
        return _reason(error), None
    question = Question(asked.input_tokens, asked.output_tokens, asked.concurrency)
    return choice, (choice.artifact.payload.latency, point.engine, question)


def _outcomes(jobs: Sequence[Job], harness: Harness) -> Iterator[Figures | str]:
    """Simulate in this process, or in one a CPU where that is worth starting them."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    requests = sum(question.concurrency for _, _, question in jobs) * harness.requests_per_slot
    if cpus == 1 or len(jobs) < 2 * cpus or requests < WORTH_PROCESSES_S * REQUESTS_PER_S:
        yield from (_outcome(job, harness) for job in jobs)
        return
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(cpus, spawned) as pool:
        size = max(1, len(jobs) // (cpus * CHUNKS_A_PROCESS))
        yield from pool.map(_outcome, jobs, [harness] * len(jobs), chunksize=size)


def _outcome(job: Job, harness: Harness) -> Figures | str:
    """Return the figures, or why the engine can't serve the load."""
    try:
        return harness.figures(*job)
    except InputError as error:
        return _reason(error)


def _reason(error: Infeasible | InputError) -> str:
    return f"{error.what}: {error.why}" if error.why else error.what
