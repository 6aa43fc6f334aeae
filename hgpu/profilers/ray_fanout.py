"""Profiling on a Ray cluster, the near side: one actor an accelerator type, types in parallel.

Every point comes home as it is made and is kept in a journal here. A node that is lost costs
what it hadn't told: the job goes on elsewhere, from the journal.
"""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hgpu.core.errors import EngineError, HgpuError
from hgpu.core.operating_point import OperatingPoint
from hgpu.profilers import ray_home
from hgpu.profilers.ray_cluster import demand, description, joined
from hgpu.profilers.ray_node import Done, Event, Failed, Measure, NodeProfiler, Progressed, profile_attached
from hgpu.profilers.result import ProfileResult
from hgpu.profilers.vllm import VllmJob
from hgpu.profilers.vllm_process import Progress

Outcome = ProfileResult | HgpuError

TIMEOUT_S = 60.0
RETRIES = 2


def fan_out(
    jobs: Sequence[VllmJob],
    address: str,
    folder: Path,
    progress: Progress,
    timeout_s: float = TIMEOUT_S,
    retries: int = RETRIES,
    measure: Measure = profile_attached,
) -> dict[OperatingPoint, Outcome]:
    """Measure each job on a node of its GPU type; return its result, or why there is none.

    A job must find its place within `timeout_s`, and may lose its node `retries` times. Jobs of
    one type, and of all CPU types, take turns: side by side they would disturb each other.
    Cores and devices are chosen on the node; the jobs name none. Their journals are in `folder`.
    Raises InputError or HgpuError where the cluster can't be joined or a journal is in use.
    """
    with ray_home.only_here(jobs, folder), joined(address):
        outcomes = _Fan(folder, progress, timeout_s, retries, measure).run(jobs)
    return {job.point: outcomes[job.point] for job in jobs}


@dataclass(slots=True)
class _Attempt:
    """A job on its way, and the rest of its lane: without a `node` yet, it must find one in time."""

    job: VllmJob
    lane: deque[VllmJob]
    losses: int = 0
    actor: Any = None
    deadline_s: float = 0.0
    node: str = ""


class _Fan:
    """The attempts under way, each by the reference of the answer that it waits for."""

    def __init__(
        self, folder: Path, progress: Progress, timeout_s: float, retries: int, measure: Measure
    ) -> None:
        self._folder = folder
        self._progress = progress
        self._timeout_s = timeout_s
        self._retries = retries
        self._measure = measure
        self._waiting: dict[Any, _Attempt] = {}
        self._counts: dict[OperatingPoint, tuple[int, int]] = {}
        self._outcomes: dict[OperatingPoint, Outcome] = {}

    def run(self, jobs: Sequence[VllmJob]) -> dict[OperatingPoint, Outcome]:
        import ray

        for lane in ray_home.lanes(jobs):
            self._begin(lane)
        while self._waiting:
            ready, _ = ray.wait(list(self._waiting), timeout=self._patience_s())
            for reference in ready:
                self._answered(self._waiting.pop(reference), reference)
            self._give_up_on_the_late()
        return self._outcomes

    def _begin(self, lane: deque[VllmJob]) -> None:
        """Submit the first job of a lane that can be asked for at all."""
        while lane:
            job = lane.popleft()
            try:
                self._submit(_Attempt(job, lane))
            except HgpuError as error:
                self._outcomes[job.point] = error
            else:
                return

    def _submit(self, attempt: _Attempt) -> None:
        import ray

        job = attempt.job
        order = ray_home.order(job, self._folder, self._measure)
        actor = ray.remote(NodeProfiler).options(**demand(job.gpu, job.point.tp)).remote()
        attempt.actor, attempt.node = actor, ""
        attempt.deadline_s = time.monotonic() + self._timeout_s
        self._show(job.point, 0, 0, "waiting for a node")
        self._waiting[actor.start.remote(order)] = attempt

    def _patience_s(self) -> float | None:
        deadlines = [attempt.deadline_s for attempt in self._waiting.values() if not attempt.node]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _answered(self, attempt: _Attempt, reference: Any) -> None:
        import ray

        try:
            answer = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            self._end(attempt, ray_home.broken(attempt.job, error))
        except ray.exceptions.RayError as error:
            self._lost(attempt, error)
        else:
            if isinstance(answer, str):
                attempt.node = answer
            else:
                self._take(attempt, answer)
            if attempt.job.point not in self._outcomes:
                self._waiting[attempt.actor.next.remote()] = attempt

    def _take(self, attempt: _Attempt, event: Event) -> None:
        """Keep what an event brings home: its entries first."""
        job = attempt.job
        ray_home.keep(job, self._folder, event.entries)
        match event:
            case Progressed(done, total, at):
                self._show(job.point, done, total, at)
            case Done(result):
                self._end(attempt, result)
            case Failed():
                self._end(attempt, ray_home.failure(job, self._folder, event, attempt.node))

    def _show(self, point: OperatingPoint, done: int, total: int, at: str) -> None:
        self._counts[point] = done, total
        dones, totals = zip(*self._counts.values(), strict=True)
        self._progress(sum(dones), sum(totals), f"{point.name}: {at}")

    def _lost(self, attempt: _Attempt, error: Exception) -> None:
        import ray

        attempt.losses += 1
        if attempt.losses > self._retries:
            self._end(attempt, ray_home.lost(attempt.job, self._folder, attempt.losses, error))
        else:
            ray.kill(attempt.actor)  # it may be out of reach only
            self._submit(attempt)

    def _give_up_on_the_late(self) -> None:
        now_s = time.monotonic()
        for reference, attempt in list(self._waiting.items()):
            if not attempt.node and now_s >= attempt.deadline_s:
                del self._waiting[reference]
                # The rest of its lane asks for no less.
                for job in attempt.lane:
                    self._outcomes[job.point] = self._no_place(job)
                attempt.lane.clear()
                self._end(attempt, self._no_place(attempt.job))

    def _no_place(self, job: VllmJob) -> EngineError:
        asked = ", ".join(f"{name} {value}" for name, value in demand(job.gpu, job.point.tp).items())
        return EngineError(
            f"{job.point.name} found no place on the Ray cluster in {self._timeout_s:g} s",
            f"it asks for {asked}; {description()}",
            "add such a node, leave the type out with --gpu, or give a busy cluster more --ray-timeout",
        )

    def _end(self, attempt: _Attempt, outcome: Outcome) -> None:
        """Settle a job, free what it held, and go on with its lane."""
        import ray

        self._outcomes[attempt.job.point] = outcome
        ray.kill(attempt.actor)
        self._begin(attempt.lane)
