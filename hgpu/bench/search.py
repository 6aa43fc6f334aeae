"""The highest rate that meets the objectives: doubled until one breaks them, then bisected.

A rate gets a first look, long enough that a clean one passes, and a second where the first doesn't decide;
each look may be wrong with half of the chance that the rate is allowed. A rate that stays undecided counts
as one that doesn't pass, and so does one at which too many requests fail. A look that the harness spoiled
is taken again, a few times; then it counts as not passed too, and voids the search. So does a point of
which no request came back: the server is gone, and the search ends.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import sqrt

from hgpu.artifacts.payloads.load import LoadPoint, SearchAnswer
from hgpu.bench.arrivals import OPEN, Load
from hgpu.bench.confidence import ALPHA, Verdict, objectives, requests_needed, slo_verdict
from hgpu.core.errors import InputError, UnknownName
from hgpu.core.slo import Slo

LOOKS = 2
_SPOILED = 2  # looks at a rate that the harness may spoil
_ROOM = 1.3  # times as many requests as a clean look needs


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """Where to begin and how far to go. `precision` is how near two rates come, relative to the lower."""

    slo: Slo
    arrivals: str = "poisson"
    start_rps: float = 1.0
    max_rps: float = 10_000.0
    precision: float = 0.05
    duration_s: float = 30.0
    max_duration_s: float = 300.0
    seed: int = 0
    burstiness: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a search without an end, or without an aim."""
        if self.arrivals not in OPEN:
            raise UnknownName("arrival process", self.arrivals, OPEN)
        if not objectives(self.slo):
            raise InputError("a search needs an objective", "none is given", "add --slo-ttft-ms or another")
        if not (0 < self.start_rps <= self.max_rps and self.precision > 0):
            raise InputError(
                "bad search",
                "rates and precision must be positive, the start within the end",
                "give another --start, --max-rate or --precision",
            )
        if not self.tells(self.start_rps):
            needed = requests_needed(self.slo, ALPHA / LOOKS)
            raise InputError(
                f"a search can't tell anything of {self.start_rps:g} requests/s",
                f"that takes {needed} requests, and looks of {self.longest_s:g} s bring"
                f" {self.start_rps * self.longest_s * LOOKS:g}",
                f"give --start {needed / (LOOKS * self.longest_s):.2g} or more, a longer --max-duration,"
                " or a lower --percentile",
            )

    @property
    def longest_s(self) -> float:
        """How long one look may last."""
        return max(self.duration_s, self.max_duration_s)

    def tells(self, rate_rps: float) -> bool:
        """Tell whether a rate could pass at all in the time that its looks may take."""
        return rate_rps * LOOKS * self.longest_s >= requests_needed(self.slo, ALPHA / LOOKS)


Measure = Callable[[int, Load], LoadPoint]


@dataclass(slots=True)
class Search:
    """A search in progress. `points` are those that were sent, in order; `spoiled` had too late a harness.

    More than `max_error_rate` of a point's requests failed where the server is to blame for it.
    """

    options: SearchOptions
    measure: Measure
    max_error_rate: float
    points: list[LoadPoint] = field(default_factory=list)
    undecided: list[float] = field(default_factory=list)
    spoiled: list[LoadPoint] = field(default_factory=list)
    server_gone: bool = False
    answer: SearchAnswer | None = None

    def run(self) -> SearchAnswer:
        """Return, and keep, the highest rate that passes, 0 where none does, and the lowest that doesn't."""
        low, high = 0.0, 0.0
        rate_rps = self.options.start_rps
        while not (low and high) and self.may_try(rate_rps):
            low, high = (rate_rps, high) if self.passes(rate_rps) else (low, rate_rps)
            rate_rps = low * 2 if not high else high / 2
            if not high and low < self.options.max_rps:
                rate_rps = min(rate_rps, self.options.max_rps)
        while low and high and high / low > 1 + self.options.precision and not self.server_gone:
            middle = float(f"{sqrt(low * high):.4g}")
            low, high = (middle, high) if self.passes(middle) else (low, middle)
        self.answer = SearchAnswer(
            highest_rps=low, failed_rps=high or None, undecided_rps=sorted(self.undecided)
        )
        return self.answer

    def may_try(self, rate_rps: float) -> bool:
        """Tell whether a rate is within the limits, and could pass at all in the time that it may take."""
        return not self.server_gone and rate_rps <= self.options.max_rps and self.options.tells(rate_rps)

    def passes(self, rate_rps: float) -> bool:
        """Tell whether a rate keeps the objectives."""
        missed = dict.fromkeys(objectives(self.options.slo), 0)
        requests = 0
        for _ in range(LOOKS):
            point = self.sound_look(rate_rps)
            if point.errors == point.requests:
                self.spoiled.append(point)
                self.server_gone = True
            if not point.validity.valid or self.server_gone:
                return False
            requests += point.requests
            for name in missed:
                missed[name] += round((1 - point.attainment[name]) * point.requests)
            found = slo_verdict(missed, requests, self.options.slo, ALPHA / LOOKS)
            if found is not Verdict.UNDECIDED:
                return found is Verdict.PASS
        self.undecided.append(rate_rps)
        return False

    def sound_look(self, rate_rps: float) -> LoadPoint:
        """Look at a rate, again where the harness spoiled it."""
        for _ in range(_SPOILED):
            point = self.look(rate_rps)
            if point.validity.valid or point.errors > self.max_error_rate * point.requests:
                return point
        point = self.look(rate_rps)
        if not point.validity.valid and point.errors <= self.max_error_rate * point.requests:
            self.spoiled.append(point)
        return point

    def look(self, rate_rps: float) -> LoadPoint:
        """Send a rate for as long as the percentile needs, within the limits."""
        options, number = self.options, len(self.points)
        needed_s = _ROOM * requests_needed(options.slo, ALPHA / LOOKS) / rate_rps
        duration_s = min(max(options.duration_s, needed_s), options.longest_s)
        load = Load(
            options.arrivals, duration_s, options.seed + number, rate_rps, burstiness=options.burstiness
        )
        point = self.measure(number, load)
        self.points.append(point)
        return point
