"""Loads for the benchmark, made from an hour of a trace: many users of it, and a day of them."""

import numpy as np

from hgpu.workloads.trace import Floats, Trace, ordered_trace

DAY_S = 86_400.0
AMPLITUDE = 0.6  # of the day's sine around its mean: the busiest moment is 4 times the quietest


def part(trace: Trace, first: float, last: float) -> Trace:
    """Return the requests of a part of a trace's time."""
    low, high = np.searchsorted(trace.arrivals_s, [first * trace.duration_s, last * trace.duration_s + 1e-9])
    kept = slice(int(low), int(high))
    return ordered_trace(
        f"{trace.name}[{first:g}:{last:g}]",
        trace.arrivals_s[kept].copy(),
        trace.input_tokens[kept],
        trace.output_tokens[kept],
        f"{trace.source}, its time from {first:.0%} to {last:.0%}",
    )


def streams(trace: Trace, count: int, seconds: float, seed: int) -> Trace:
    """Return `count` users who each play the trace over and over, from a moment of their own."""
    rng = np.random.default_rng(seed)
    period_s = trace.duration_s + trace.duration_s / trace.requests
    times, numbers = [], []
    for start_s in rng.uniform(0, period_s, count):
        rounds = int(np.ceil(seconds / period_s)) + 1
        at = (np.arange(rounds)[:, None] * period_s + trace.arrivals_s - start_s).ravel()
        which = np.tile(np.arange(trace.requests), rounds)
        inside = (at >= 0) & (at < seconds)
        times.append(at[inside])
        numbers.append(which[inside])
    return _made(trace, np.concatenate(times), np.concatenate(numbers), f"{count} users of {trace.source}")


def in_step(trace: Trace, count: int, spread_s: float, seed: int) -> Trace:
    """Return the trace with each request `count` times, each moved by up to half of `spread_s`."""
    rng = np.random.default_rng(seed)
    numbers = np.repeat(np.arange(trace.requests), count)
    times_s = trace.arrivals_s[numbers] + rng.uniform(-spread_s / 2, spread_s / 2, len(numbers))
    return _made(trace, times_s, numbers, f"{count} times {trace.source}, moved by up to {spread_s / 2:g} s")


def by_day(trace: Trace) -> Trace:
    """Return a day's trace with its arrivals moved so that their rate follows 1 − A·cos(2π·t/day).

    An arrival at t of the even trace comes at the T where Λ(T) = T − A·day/2π·sin(2π·T/day) is t: the
    trace's own bursts stay, closer together by day than by night. (Time change of a point process; a sine is
    the usual model of daily load: Green, Kolesar and Svoronos, Operations Research 39, 1991.)
    """
    grid_s = np.linspace(0, DAY_S, 86_401)
    turn = 2 * np.pi / DAY_S
    even_s = grid_s - AMPLITUDE / turn * np.sin(turn * grid_s)
    times_s = np.interp(trace.arrivals_s, even_s, grid_s)
    name = f"{trace.source}, by a daily sine of amplitude {AMPLITUDE:g}"
    return _made(trace, times_s, np.arange(trace.requests), name)


def between(trace: Trace, first_s: float, last_s: float) -> Trace:
    """Return the requests that arrive between two moments."""
    return part(trace, first_s / trace.duration_s, last_s / trace.duration_s)


def busiest_hour(trace: Trace) -> tuple[float, float]:
    """Return the hour with the most requests, by steps of ten minutes."""
    starts_s = np.arange(0, max(trace.duration_s - 3600, 1), 600)
    ends = np.searchsorted(trace.arrivals_s, starts_s + 3600)
    counts = ends - np.searchsorted(trace.arrivals_s, starts_s)
    start_s = float(starts_s[counts.argmax()])
    return start_s, min(start_s + 3600, trace.duration_s)


def _made(trace: Trace, times_s: Floats, numbers: np.ndarray, source: str) -> Trace:
    return ordered_trace(
        trace.name, times_s, trace.input_tokens[numbers], trace.output_tokens[numbers], source
    )
