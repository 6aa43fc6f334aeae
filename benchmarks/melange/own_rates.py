"""The paper's own single-type rates for Arena through hgpu's solver, beside the costs of its mixes.

    python benchmarks/melange/own_rates.py

One bucket: an engine of a type carries 32 req/s over the paper's count of it at 32 req/s. That
leaves out that types differ in the requests that they are best for, which the paper's mixes use;
counts are whole, so the rates are up to one GPU in the count too low. No estimate of ours enters.
"""

from collections.abc import Mapping

from setting import ARENA_COUNTS, ARENA_USD_PER_HOUR, GPUS, RATES_RPS

from hgpu.catalog.offers import load_offers
from hgpu.core.operating_point import OperatingPoint
from hgpu.solvers.allocation import solve
from hgpu.solvers.problem import Column, Problem


def main() -> None:
    print("| TPOT ms | req/s | best single type | hgpu, one bucket | USD/h | saves | paper | saves |")
    print("|---:|---:|---:|---|---:|---:|---:|---:|")
    prices = {offer.gpu: offer.usd_per_hour for offer in load_offers("melange")}
    for tpot_ms, counts in ARENA_COUNTS.items():
        for number, rate_rps in enumerate(RATES_RPS):
            best = min(counts[gpu][number] * prices[gpu] for gpu in GPUS)
            theirs = ARENA_USD_PER_HOUR[tpot_ms][number]
            allocation = solve(one_bucket(float(rate_rps), counts)).allocation
            mix = " + ".join(f"{pool.machines} {pool.point.gpu}" for pool in allocation.pools)
            cost = allocation.usd_per_hour
            print(
                f"| {tpot_ms} | {rate_rps} | {best:.2f} | {mix} | {cost:.2f} | {1 - cost / best:.0%} "
                f"| {theirs:.2f} | {1 - theirs / best:.0%} |"
            )


def one_bucket(rate_rps: float, counts: Mapping[str, tuple[int, ...]]) -> Problem:
    """Return the problem of one bucket in which each type carries what the paper's count implies."""
    columns = tuple(
        Column(offer, OperatingPoint(offer.gpu), (RATES_RPS[-1] / counts[offer.gpu][-1],))
        for offer in load_offers("melange")
    )
    return Problem(("Arena",), (rate_rps,), columns)


if __name__ == "__main__":
    main()
