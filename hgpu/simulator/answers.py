"""Answers about operating points: find the latency model of each, simulate its load, collect."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
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
Job = tuple[Harness, LatencyModel, EngineOptions, Question]


@dataclass(frozen=True, slots=True)
class Answer:
    """A point with its figures, or with the reason why there are none.

    `harness` is the one of this point: what the command says, and the row more precisely. `engine` is None
    where no engine could be asked at all.
    """

    asked: AskedPoint
    harness: Harness
    engine: EngineOptions | None = None
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
    planned = [_planned(point, sources, harness) for point in asked]
    jobs = list(dict.fromkeys(job for _, job in planned if job is not None))
    done: dict[Job, Figures | str] = {}
    for number, outcome in enumerate(_outcomes(jobs)):
        done[jobs[number]] = outcome
        progress(len(done), len(jobs), "points")
    return [answer if job is None else _answered(answer, done[job]) for answer, job in planned]


def _planned(asked: AskedPoint, sources: Sources, harness: Harness) -> tuple[Answer, Job | None]:
    """Return a point's answer so far, and the simulation that it needs unless it has an error."""
    answer = Answer(asked, _harness_of(asked, harness))
    total = asked.input_tokens + asked.output_tokens
    try:
        engine = default_engine(asked.model, asked.gpu, asked.tp, total, asked.concurrency)
        point = asked.operating_point(engine)
        answer = replace(answer, engine=point.engine)
        choice = sources.of(asked, point)
    except Infeasible as error:
        return replace(answer, error=_reason(error)), None
    question = Question(asked.input_tokens, asked.output_tokens, asked.concurrency)
    job = (answer.harness, choice.artifact.payload.latency, point.engine, question)
    return replace(answer, choice=choice), job


def _harness_of(asked: AskedPoint, harness: Harness) -> Harness:
    """Return the harness with the spreads that the point states."""
    inputs = harness.input_spread if asked.input_spread is None else asked.input_spread
    outputs = harness.output_spread if asked.output_spread is None else asked.output_spread
    return replace(harness, input_spread=inputs, output_spread=outputs)


def _answered(answer: Answer, outcome: Figures | str) -> Answer:
    if isinstance(outcome, Figures):
        return replace(answer, figures=outcome)
    return replace(answer, choice=None, error=outcome)


def _outcomes(jobs: Sequence[Job]) -> Iterator[Figures | str]:
    """Simulate in this process, or in one a CPU where that is worth starting them."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    requests = sum(question.concurrency * harness.requests_per_slot for harness, _, _, question in jobs)
    if cpus == 1 or len(jobs) < 2 * cpus or requests < WORTH_PROCESSES_S * REQUESTS_PER_S:
        yield from map(_outcome, jobs)
        return
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(cpus, spawned) as pool:
        size = max(1, len(jobs) // (cpus * CHUNKS_A_PROCESS))
        yield from pool.map(_outcome, jobs, chunksize=size)


def _outcome(job: Job) -> Figures | str:
    """Return the figures, or why the engine can't serve the load."""
    harness, latency, engine, question = job
    try:
        return harness.figures(latency, engine, question)
    except InputError as error:
        return _reason(error)


def _reason(error: Infeasible | InputError) -> str:
    return f"{error.what}: {error.why}" if error.why else error.what
