"""The control loop: look at the load, forecast it, solve again, and step towards the answer.

What must be carried is the highest of what was forecast and of what came in the last `hold_s` seconds, and a
queue on top, as if it were to be worked off within a lead time. So more is ordered as soon as it shows, and
less only once the lower need has held, and is lower by a part that is worth a change (`band`). The loop knows
nothing of clocks, networks or clusters.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil

from hgpu.runtime.control.forecast import Forecaster, Smoothing
from hgpu.runtime.control.goal import Goal, Outcome, Solving, goal_of
from hgpu.runtime.control.known import KnownCapacities, servable
from hgpu.runtime.control.marginals import Histogram
from hgpu.runtime.control.pools import ControlledPool
from hgpu.runtime.control.step import step_towards
from hgpu.runtime.control.window import LengthWindow
from hgpu.solvers.demand import Demand

LEAST_RPS = 1e-6  # a service that nobody asks keeps the engines that any load needs


@dataclass(frozen=True, slots=True)
class Rules:
    """How a loop decides.

    - `interval_s`: from look to look; `startup_s`: from the order of a machine until its engine answers;
    - `hold_s`, `band`: how long a lower need must hold, and the part by which it must be lower;
    - `half_life_s`, `prior_requests`: of the window of lengths.
    """

    interval_s: float = 30.0
    startup_s: float = 240.0
    hold_s: float = 600.0
    band: float = 0.05
    half_life_s: float = 900.0
    prior_requests: float = 500.0
    smoothing: Smoothing = field(default_factory=Smoothing)
    solving: Solving = field(default_factory=Solving)

    @property
    def lead_s(self) -> float:
        """From the moment when a load shows until an engine serves it: next look, solve, start-up."""
        return self.interval_s + self.solving.time_limit_s + self.startup_s


@dataclass(frozen=True, slots=True)
class Load:
    """What was seen since the last look: requests that came, of those that ended the lengths, the queue.

    Lengths are known request by request, or as histograms of inputs and of outputs, a pair an engine.
    """

    now_s: float
    seconds: float
    arrived: float
    ended: tuple[tuple[int, int], ...] = ()
    histograms: tuple[tuple[Histogram, Histogram], ...] = ()
    waiting: float = 0.0


@dataclass(frozen=True, slots=True)
class Decision:
    """The engines that each pool is to have now, the goal that they are on the way to, and why.

    `served` is the part of the need that the goal carries, `beyond` the part of all requests that no pool
    serves within the objectives.
    """

    now_s: float
    engines: tuple[int, ...]
    goal: tuple[int, ...]
    outcome: Outcome
    reason: str
    served: float
    beyond: float
    rate_rps: float
    forecast_rps: float
    need_rps: float
    usd_per_hour: float


class Loop:
    """Decides from look to look; `ordered` are the engines of each pool that run or start as it begins."""

    def __init__(
        self, demand: Demand, pools: Sequence[ControlledPool], ordered: Sequence[int], rules: Rules
    ) -> None:
        prior = demand.service.workload
        self.demand, self.pools, self.rules = demand, tuple(pools), rules
        self.ordered = tuple(ordered)
        self.window = LengthWindow(prior, rules.half_life_s, rules.prior_requests)
        horizon = max(1, ceil(rules.lead_s / rules.interval_s))
        self.forecaster = Forecaster(horizon, prior.rate_rps, rules.smoothing)
        self.needs: deque[tuple[float, float]] = deque()
        self.began_s: float | None = None
        self.need_rps = 0.0
        self.capacities = KnownCapacities()
        self.now = demand

    def look(self, load: Load, ready: Sequence[int]) -> Decision:
        """Take what was seen, and the engines of each pool that answer, and decide."""
        rate_rps = load.arrived / load.seconds
        self._take(load, rate_rps)
        self._note_need(load, rate_rps)
        workload = self.window.workload(max(self.need_rps, LEAST_RPS))
        self.now, beyond = servable(self.capacities.demand_at(self.demand, workload))
        goal = goal_of(self.now, self.pools, self.ordered, self.rules.solving)
        self.ordered = self._step(goal, load.now_s, ready)
        return Decision(
            load.now_s,
            self.ordered,
            goal.engines,
            goal.outcome,
            goal.reason,
            goal.served,
            beyond,
            rate_rps,
            self.forecaster.upper_rps,
            self.need_rps,
            usd_per_hour(self.pools, self.ordered),
        )

    def _take(self, load: Load, rate_rps: float) -> None:
        self.forecaster.add(rate_rps)
        self.window.fade(load.now_s)
        self.window.add(load.ended)
        for inputs, outputs in load.histograms:
            self.window.add_histograms(inputs, outputs)

    def _note_need(self, load: Load, rate_rps: float) -> None:
        """Raise the need at once; lower it only to a level that is lower by the band, and has held."""
        queue_rps = load.waiting / self.rules.lead_s
        self.needs.append((load.now_s, max(self.forecaster.upper_rps, rate_rps) + queue_rps))
        while self.needs[0][0] < load.now_s - self.rules.hold_s:
            self.needs.popleft()
        held_rps = max(need for _, need in self.needs)
        if not self.need_rps * (1 - self.rules.band) <= held_rps <= self.need_rps:
            self.need_rps = held_rps

    def _step(self, goal: Goal, now_s: float, ready: Sequence[int]) -> tuple[int, ...]:
        """Less only where the loop has been looking for as long as a lower need must hold."""
        if self.began_s is None:
            self.began_s = now_s
        held = now_s - self.began_s >= self.rules.hold_s
        may_shrink = held and goal.outcome is Outcome.SOLVED
        return step_towards(goal.engines, self.ordered, ready, self.pools, may_shrink)


def usd_per_hour(pools: Sequence[ControlledPool], engines: Sequence[int]) -> float:
    """Return the price of the machines that hold so many engines of each pool."""
    return sum(
        ceil(count / pool.engines_per_machine) * pool.offer.usd_per_hour
        for pool, count in zip(pools, engines, strict=True)
    )
