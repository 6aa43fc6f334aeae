"""Random allocation problems that look like Mélange's, the same for the same seed.

Buckets are a grid of input × output lengths, evenly spaced in the logarithm between the paper's
smallest size (25 tokens) and its long documents. A GPU type at price p (USD/h) serves

    capacity = 700 · p / size · (size / 825)^(0.15 · ln(p / 1.92)) · noise     (requests/s)

so that no type dominates: cheap ones do more per dollar for small requests and dear ones for
large. Exponent and crossing reproduce the paper's spread for Llama 2 7B: A10G +72 % per dollar
at 25 in and 25 out, A100 +36 % (theirs: 38 %) at 2000 and 2000. Types can't serve sizes beyond
a memory that grows with their price, nor one more pair in twenty, but the dearest serves all.
"""

import math

import numpy as np

from hgpu.core.offer import Market, Offer
from hgpu.core.operating_point import OperatingPoint
from hgpu.solvers.problem import Column, Limit, Problem

PAPER_PRICES = (0.70, 1.01, 3.67, 7.516)  # L4, A10G, A100-80GB, H100, USD/h (section 6)
CROSSING_TOKENS = 825.0  # requests of this size get the same per dollar everywhere
MEAN_PRICE = 1.92  # USD/h, the geometric mean of A10G and A100
LONGEST = (8000, 2000)  # tokens in and out of the largest bucket
UNSERVABLE = 0.05  # of the pairs, beside those that are too large
TOKENS_PER_USD = 2000.0  # the largest request in tokens that a type of 1 USD/h serves


def random_problem(
    buckets: int, types: int, seed: int = 0, rate_rps: float = 32.0, time_limit_s: float = 60.0
) -> Problem:
    """Return a problem of that many buckets and GPU types at a total rate (requests/s)."""
    rng = np.random.default_rng([seed, buckets, types])
    names, sizes = _grid(buckets)
    weights = rng.lognormal(sigma=1.0, size=buckets)
    prices = _prices(types, rng)
    noise = rng.lognormal(sigma=0.15, size=(buckets, types))
    lost = rng.random((buckets, types)) < UNSERVABLE
    columns = []
    for g, price in enumerate(prices):
        tilt = 0.15 * math.log(price / MEAN_PRICE)
        capacity = 700 * price / sizes * (sizes / CROSSING_TOKENS) ** tilt * noise[:, g]
        if price < prices[-1]:
            capacity[lost[:, g] | (sizes > TOKENS_PER_USD * price)] = 0.0
        columns.append(_column(g, price, capacity.tolist()))
    rates = tuple((rate_rps * weights / weights.sum()).tolist())
    return Problem(names, rates, tuple(columns), time_limit_s=time_limit_s)


def with_caps(problem: Problem, machines: int) -> Problem:
    """Return the problem with at most so many machines of each type but the last, which serves everything."""
    limits = tuple(
        Limit(f"cap of {column.point.gpu}", {number: 1.0}, at_most=float(machines))
        for number, column in enumerate(problem.columns[:-1])
    )
    return Problem(
        problem.bucket_names,
        problem.rates_rps,
        problem.columns,
        limits,
        problem.gap,
        problem.time_limit_s,
    )


def _grid(buckets: int) -> tuple[tuple[str, ...], np.ndarray]:
    """Return names and total tokens of the first `buckets` cells of a square grid."""
    side = math.ceil(math.sqrt(buckets))
    inputs, outputs = (np.geomspace(25, longest, side).round(1) for longest in LONGEST)
    cells = [(i, o) for i in inputs for o in outputs]
    kept = [cells[number] for number in np.linspace(0, len(cells) - 1, buckets).round().astype(int)]
    return tuple(f"in≤{i:g} out≤{o:g}" for i, o in kept), np.array([i + o for i, o in kept])


def _prices(types: int, rng: np.random.Generator) -> list[float]:
    """Return the paper's prices, and between its lowest and highest as many more as are needed."""
    low, high = math.log(PAPER_PRICES[0]), math.log(PAPER_PRICES[-1])
    more = np.exp(rng.uniform(low, high, max(0, types - len(PAPER_PRICES)))).round(3).tolist()
    return sorted([*PAPER_PRICES[len(PAPER_PRICES) - min(types, len(PAPER_PRICES)) :], *more])


def _column(number: int, price_usd_per_hour: float, capacity_rps: list[float]) -> Column:
    name = f"gpu{number}"
    offer = Offer("random", name, "any", Market.ON_DEMAND, name, 1, price_usd_per_hour, "", "random instance")
    return Column(offer, OperatingPoint(name), tuple(capacity_rps))
