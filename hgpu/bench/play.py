"""Sending a schedule from one process: open, at its moments, or closed, an answer for a request."""

import asyncio
import gc
import importlib.util
import resource
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, TypeVar

from hgpu.bench.arrivals import Schedule
from hgpu.bench.client import Client
from hgpu.bench.exchange import Exchange
from hgpu.bench.outcomes import Outcomes, outcomes_of
from hgpu.bench.prompts import Prompts, Wording
from hgpu.bench.target import Target
from hgpu.bench.timetable import Timetable

T = TypeVar("T")
_SAY_S = 0.25  # between two words of progress
_AFTER_ERROR_S = 0.1  # until a closed loop sends again


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A schedule and where it goes. Worker `share` of `shares` sends every so manieth request of it."""

    target: Target
    wording: Wording
    schedule: Schedule
    seeds: tuple[int, ...]
    share: int = 0
    shares: int = 1

    def parts(self, count: int) -> list["Job"]:
        """Return the parts for so many workers; a closed loop has no more than requests in flight."""
        count = min(count, self.schedule.concurrency or len(self.schedule.input_tokens))
        return [replace(self, share=share, shares=count) for share in range(count)]


def play(job: Job, started_s: float, finished: Callable[[int], None] = lambda _: None) -> Outcomes:
    """Send a job from `started_s` (of `time.monotonic`) on, and return what came of its requests.

    `finished` hears now and then how many have ended. Returns when all have, each in `timeout_s` at most.
    """
    _allow_connections()
    gc.collect()
    gc.disable()  # a collection stops the world for longer than a token takes
    try:
        return run_in_loop(_Play(job, started_s, finished).run)
    finally:
        gc.enable()


def run_in_loop(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine in uvloop's event loop where that is installed, otherwise in asyncio's."""
    factory = import_module("uvloop").new_event_loop if importlib.util.find_spec("uvloop") else None
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())


def _allow_connections() -> None:
    """Raise the limit on open files as far as the system lets us: a connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _Play:
    def __init__(self, job: Job, started_s: float, finished: Callable[[int], None]) -> None:
        self.job, self.started_s, self.finished = job, started_s, finished
        plan = job.schedule
        self.inputs, self.outputs = plan.input_tokens.tolist(), plan.output_tokens.tolist()
        self.intended_s = [] if plan.intended_s is None else plan.intended_s.tolist()
        self.prompts = Prompts(job.wording, max(self.inputs), job.seeds)
        self.head, self.body = job.target.head(), job.target.body()
        self.next, self.in_flight = job.share, 0
        self.done: list[Exchange] = []

    async def run(self) -> Outcomes:
        loop = asyncio.get_running_loop()
        self.client = Client(self.job.target, self.ended)
        self.timetable = Timetable(loop)
        self.over = asyncio.Event()
        if self.intended_s:
            self.timetable.at(self.started_s + self.intended_s[self.next], self.send_due)
        else:
            plan, first = self.job.schedule, self.started_s
            for _ in range(self.job.share, plan.concurrency, self.job.shares):
                self.timetable.at(first, lambda: self.send_next(first))
        try:
            await self.watch()
        finally:
            self.timetable.close()
            await self.client.close()
        return outcomes_of(self.done, self.client.gaps_s, self.started_s)

    async def watch(self) -> None:
        while not self.over.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self.over.wait(), _SAY_S)
            self.finished(len(self.done))

    def send_due(self) -> None:
        """Send what is due, and come back for the next."""
        while self.next < len(self.intended_s):
            moment_s = self.started_s + self.intended_s[self.next]
            if moment_s > time.monotonic():
                self.timetable.at(moment_s, self.send_due)
                return
            self.send(self.next, moment_s)
            self.next += self.job.shares

    def send_next(self, intended_s: float) -> None:
        """Send the next request of a closed loop, unless its time is over."""
        if intended_s - self.started_s < self.job.schedule.duration_s:
            self.send(self.next, intended_s)
            self.next += self.job.shares
        elif not self.in_flight:
            self.over.set()

    def send(self, number: int, intended_s: float) -> None:
        at = number % len(self.inputs)
        tokens, output = self.inputs[at], self.outputs[at]
        plan = self.job.schedule
        blocks = plan.blocks[at] if plan.blocks else ()
        before, after, rest = self.body
        prompt = self.prompts.write(number, tokens, blocks, plan.block_tokens)
        body = b"%b%b%b%d%b" % (before, prompt, after, output, rest)
        message = b"%b%d\r\n\r\n%b" % (self.head, len(body), body)
        self.in_flight += 1
        self.client.send(Exchange(number, intended_s, tokens, output, time.monotonic()), message)

    def ended(self, exchange: Exchange) -> None:
        self.in_flight -= 1
        self.done.append(exchange)
        if not self.intended_s:
            self.follow(exchange)
        elif not self.in_flight and self.next >= len(self.intended_s):
            self.over.set()

    def follow(self, exchange: Exchange) -> None:
        """Send the next at once; after an error a little later, or a dead server would be stormed."""
        now_s = time.monotonic()
        if exchange.error:
            later_s = now_s + _AFTER_ERROR_S
            self.timetable.at(later_s, lambda: self.send_next(later_s))
        else:
            self.send_next(now_s)
