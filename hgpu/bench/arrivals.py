"""When requests are to be sent: constant, poisson, gamma, ramp, closed, or as a trace says."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from hgpu.core.errors import InputError, UnknownName
from hgpu.workloads.lengths import find_lengths
from hgpu.workloads.trace import Floats, Ints, PrefixBlocks, Trace

CLOSED = "closed"
TRACE = "trace"
_CLOSED_LENGTHS = 10_000  # a closed loop that sends more begins with its first lengths again


@dataclass(frozen=True, slots=True)
class Load:
    """One load to send. A rate in requests/s goes with open arrivals, a concurrency with `closed`.

    `burstiness` is the shape of the gamma-distributed gaps: 1 is Poisson, less is burstier. A ramp rises
    from 0 to twice its rate, which is its mean then.
    """

    arrivals: str
    duration_s: float
    seed: int
    rate_rps: float | None = None
    concurrency: int | None = None
    burstiness: float = 1.0

    @property
    def name(self) -> str:
        """How the load is called in tables; the same for replicates."""
        if self.arrivals == CLOSED:
            return f"{self.concurrency} in flight"
        return "" if self.rate_rps is None else f"{self.rate_rps:g} rps"


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """The requests of a load: seconds from its start, and tokens.

    A closed loop has no `intended_s`: it sends as answers come, its lengths in turn, for `duration_s`.
    `raised` lengths were 0 in the source, and are sent as 1.
    """

    intended_s: Floats | None
    input_tokens: Ints
    output_tokens: Ints
    duration_s: float
    concurrency: int = 0
    blocks: PrefixBlocks | None = None
    block_tokens: int = 0
    raised: int = field(default=0)


def schedule(load: Load, lengths: str) -> Schedule:
    """Return the requests of a load, with lengths of a named distribution; the same seed gives the same.

    Raises UnknownName, and InputError where nothing would be sent.
    """
    if load.arrivals == CLOSED:
        inputs, outputs = find_lengths(lengths).sample(_CLOSED_LENGTHS, load.seed)
        return Schedule(None, inputs, outputs, load.duration_s, concurrency=load.concurrency or 1)
    if load.arrivals not in OPEN:
        raise UnknownName("arrival process", load.arrivals, [*OPEN, CLOSED, TRACE])
    intended_s = OPEN[load.arrivals](load, load.rate_rps or 0.0, np.random.default_rng([load.seed, 0]))
    if not len(intended_s):
        raise InputError(
            f"no request falls into {load.duration_s:g} s at {load.name}",
            "the duration is too short for the rate",
            f"give --duration {10 / (load.rate_rps or 1):.0f} or more",
        )
    inputs, outputs = find_lengths(lengths).sample(len(intended_s), load.seed)
    return Schedule(intended_s, inputs, outputs, load.duration_s)


def replayed(trace: Trace, rate_rps: float | None, duration_s: float | None, seed: int = 0) -> Schedule:
    """Return a trace's requests, stretched to a mean rate, cut off after a duration, if these are given.

    A trace that has no times gets those of a Poisson process; raises InputError where it has no rate either.
    """
    intended_s = _moments_s(trace, rate_rps, seed)
    kept = len(intended_s) if duration_s is None else int(np.searchsorted(intended_s, duration_s, "right"))
    inputs, outputs = trace.input_tokens[:kept], trace.output_tokens[:kept]
    return Schedule(
        intended_s[:kept],
        np.maximum(inputs, 1),
        np.maximum(outputs, 1),
        float(intended_s[kept - 1]) if duration_s is None else duration_s,
        blocks=trace.prefix_blocks[:kept] if trace.prefix_blocks else None,
        block_tokens=trace.block_tokens or 0,
        raised=int(((inputs == 0) | (outputs == 0)).sum()),
    )


def _moments_s(trace: Trace, rate_rps: float | None, seed: int) -> Floats:
    if trace.duration_s > 0 or trace.requests == 1:
        return trace.arrivals_s * (1.0 if rate_rps is None else trace.rate_rps / rate_rps)
    if rate_rps is None:
        raise InputError(f"trace '{trace.name}' has no times", trace.source, "add --rate")
    gaps_s = np.random.default_rng([seed, 0]).exponential(1 / rate_rps, trace.requests)
    return np.asarray(np.cumsum(gaps_s) - gaps_s[0])


def _constant(load: Load, rate_rps: float, rng: np.random.Generator) -> Floats:
    count = max(1, round(load.duration_s * rate_rps))
    return np.asarray(np.arange(count) / rate_rps)


def _poisson(load: Load, rate_rps: float, rng: np.random.Generator) -> Floats:
    # Given how many arrivals a Poisson process has in an interval, they are uniform in it.
    count = rng.poisson(rate_rps * load.duration_s)
    return np.sort(rng.uniform(0.0, load.duration_s, count))


def _gamma(load: Load, rate_rps: float, rng: np.random.Generator) -> Floats:
    shape = load.burstiness
    expected = rate_rps * load.duration_s
    enough = int(expected + 6 * np.sqrt(expected / shape) + 6 / shape) + 10  # six standard deviations
    moments_s = np.cumsum(rng.gamma(shape, 1 / (rate_rps * shape), enough))
    return moments_s[moments_s < load.duration_s]


def _ramp(load: Load, rate_rps: float, rng: np.random.Generator) -> Floats:
    # A rate of 2rt/D has brought (t/D)² of its arrivals by t: the root of a uniform part is one of them.
    count = rng.poisson(rate_rps * load.duration_s)
    return load.duration_s * np.sqrt(np.sort(rng.uniform(0.0, 1.0, count)))


OPEN: dict[str, Callable[[Load, float, np.random.Generator], Floats]] = {
    "constant": _constant,
    "poisson": _poisson,
    "gamma": _gamma,
    "ramp": _ramp,
}
