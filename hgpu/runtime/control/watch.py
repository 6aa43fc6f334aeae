"""The loop beside running engines: reads, decides, and keeps the last decision whatever fails."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hgpu.core.errors import HgpuError
from hgpu.runtime.control.loop import Decision, Load, Loop
from hgpu.runtime.control.pools import ControlledPool
from hgpu.runtime.control.sources import Reader, Reading

if TYPE_CHECKING:
    import aiohttp

Clock = Callable[[], float]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision, with the pools that it is about, the engines of each that answered, and what didn't."""

    plan_digest: str
    pools: tuple[ControlledPool, ...]
    answering: tuple[int, ...]
    unprofiled: tuple[str, ...]
    silent: tuple[str, ...]
    decision: Decision


@dataclass(slots=True)
class Watch:
    """Looks on and on. `decision` is the last one; `read_s` when the load was last read, by the clock.

    The loop is made at the first reading, from the engines that there are then, those included that don't
    answer: what runs now is what it changes, and a moment's silence is no reason to take an engine away.
    """

    reader: Reader
    start: Callable[[dict[str, int]], Loop]
    say: Say
    clock: Clock = time.monotonic
    loop: Loop | None = None
    decision: Decision | None = None
    read_s: float | None = None
    readings: int = 0
    failures: int = 0
    answering: dict[str, int] = field(default_factory=dict)
    silent: tuple[str, ...] = ()

    @property
    def age_s(self) -> float | None:
        """Seconds since the load was read; None before the first time."""
        return None if self.read_s is None else self.clock() - self.read_s

    async def look(self, session: "aiohttp.ClientSession") -> Decision | None:
        """Read once; decide where there is an earlier reading. A failure leaves everything as it was."""
        try:
            reading = await self.reader.read(session)
        except HgpuError as error:
            self.failures += 1
            self.say(f"the load can't be read ({self.failures} times so far): {error.what}; {error.why}")
            return None
        now_s = self.clock()
        seconds = None if self.read_s is None else now_s - self.read_s
        self.read_s, self.answering, self.silent = now_s, reading.answering, reading.silent
        self.readings += 1
        if self.loop is None:
            self.loop = self.start(reading.addresses)
        if not reading.passed or not seconds:
            return None
        self.decision = await asyncio.to_thread(self._decide, self.loop, reading, now_s, seconds)
        return self.decision

    def _decide(self, loop: Loop, reading: Reading, now_s: float, seconds: float) -> Decision:
        load = Load(
            now_s,
            seconds,
            sum(engine.arrived for engine in reading.passed),
            histograms=tuple((engine.inputs, engine.outputs) for engine in reading.passed),
            waiting=sum(engine.waiting for engine in reading.passed),
        )
        return loop.look(load, [reading.answering[pool.name] for pool in loop.pools])

    async def forever(self, session: "aiohttp.ClientSession", interval_s: float) -> None:
        """Look every so many seconds until cancelled; no error ends it."""
        while True:
            began_s = self.clock()
            try:
                decision = await self.look(session)
                if decision is not None:
                    self.say(said(decision, self.loop))
            except Exception as error:  # what nobody foresaw must not stop the loop: the decision stands
                self.failures += 1
                self.say(f"a look failed ({self.failures} times so far): {type(error).__name__}: {error}")
            await asyncio.sleep(max(0.0, interval_s - (self.clock() - began_s)))


def said(decision: Decision, loop: Loop | None) -> str:
    """Return a decision in a line."""
    names = [pool.name for pool in loop.pools] if loop else []
    fleet = " + ".join(f"{n}× {name}" for n, name in zip(decision.engines, names, strict=True))
    text = (
        f"{decision.rate_rps:.2f} requests/s, up to {decision.forecast_rps:.2f} forecast, "
        f"{decision.need_rps:.2f} to carry: {fleet} at {decision.usd_per_hour:.2f} USD/h"
    )
    if decision.goal != decision.engines:
        goal = " + ".join(f"{n}× {name}" for n, name in zip(decision.goal, names, strict=True))
        text += f", on the way to {goal}"
    return f"{text} ({decision.outcome}: {decision.reason})" if decision.reason else text
