"""Small allocation problems for tests."""

from hgpu.core.offer import Market, Offer
from hgpu.core.operating_point import OperatingPoint
from hgpu.solvers.allocation import solve
from hgpu.solvers.problem import Column, Limit, Problem


def offer(
    name: str, price: float, gpus: int = 1, market: Market = Market.ON_DEMAND, available: int | None = None
) -> Offer:
    return Offer("x", name, "r", market, name.partition("-")[0], gpus, price, "2026-01-01", "test", available)


def column(made: Offer, *capacity_rps: float, tp: int = 1, service: str = "") -> Column:
    return Column(made, OperatingPoint(made.gpu, tp), capacity_rps, service)


def problem(rates_rps: tuple[float, ...], columns: list[Column], *limits: Limit, **more: object) -> Problem:
    names = tuple(f"b{i}" for i in range(len(rates_rps)))
    return Problem(names, rates_rps, tuple(columns), limits, **more)  # type: ignore[arg-type]


def cost(case: Problem) -> float:
    return solve(case).allocation.usd_per_hour


def engines(case: Problem) -> dict[str, int]:
    return {
        f"{pool.offer.instance_type} {pool.point.name}": pool.engines for pool in solve(case).allocation.pools
    }
