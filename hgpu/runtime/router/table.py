"""The plan's routing, for one who doesn't know how long an answer will be.

A plan gives the share of each (input, output) bucket that each pool serves. When a request arrives, only its
input is known, and perhaps a limit of its output. So a pool's share of it is the mean of its shares over the
buckets that the request may turn out to be in, weighted by their planned rates:

    share(pool | input, limit) = Σ rate·share / Σ rate,  over the input's buckets that begin below the limit

Over all requests each pool gets the rate that was planned for it; which requests these are can differ from
the plan in their output only. Where shares don't depend on the output, nothing differs.
"""

from bisect import bisect_left
from collections.abc import Sequence

from hgpu.artifacts.payloads.plan import PlanPayload, RoutingRow
from hgpu.simulator.routing import Turns

ANY_TIER = ""


class Table:
    """Which pools may take a request, the one whose turn it is first."""

    def __init__(self, pools: Sequence[str], limits: Sequence[int], rows: Sequence[RoutingRow]) -> None:
        """Take the pools' names, the most input and output tokens that each takes, and the plan's rows."""
        self.pools = tuple(pools)
        self.tiers = frozenset(row.tier for row in rows) | {ANY_TIER}
        self._limits = tuple(limits)
        self._rows = tuple(rows)
        self._edges = sorted({edge or 0 for row in rows for edge in (row.input_low, row.input_high)} or {0})
        self._lows = sorted({row.output_low or 0 for row in rows} or {0})
        self._turns: dict[tuple[str, int, int, tuple[int, ...]], Turns] = {}

    def beyond(self, input_tokens: float) -> bool:
        """Tell whether an input is longer than any that was planned for; not where lengths are unknown."""
        return 0 < self._edges[-1] < input_tokens

    def order(self, input_tokens: float, max_tokens: int | None, tier: str = ANY_TIER) -> list[int]:
        """Return the pools by number, in the order in which to try them.

        A pool whose engines refuse requests of that length comes only where all of them do: that is for
        the engine to say. An input that is longer than any planned one counts as the longest.
        """
        band = min(bisect_left(self._edges, input_tokens), len(self._edges) - 1)
        below = len(self._lows) if max_tokens is None else max(1, bisect_left(self._lows, max_tokens))
        needed = input_tokens + (max_tokens or 0)
        fitting = tuple(pool for pool, limit in enumerate(self._limits) if needed <= limit)
        key = (tier, band, below, fitting or tuple(range(len(self.pools))))
        turns = self._turns.get(key)
        if turns is None:
            turns = self._turns[key] = Turns(self._shares(*key))
        first = turns.take()
        others = (pool for pool in key[3] if pool != first)
        return [first, *others]

    def _shares(self, tier: str, band: int, below: int, pools: tuple[int, ...]) -> list[float]:
        rows = [row for row in self._rows if tier in (ANY_TIER, row.tier)]
        edge = self._edges[band]
        rows = [row for row in rows if (row.input_low or 0) < edge <= (row.input_high or 0)] or rows
        rows = [row for row in rows if (row.output_low or 0) <= self._lows[below - 1]] or rows
        rates = [
            sum(row.rate_rps * row.shares.get(name, 0.0) for row in rows) if pool in pools else 0.0
            for pool, name in enumerate(self.pools)
        ]
        total = sum(rates)
        if total == 0:  # the pools that were planned for it don't take its length: any other that does
            return [1 / len(pools) if pool in pools else 0.0 for pool in range(len(self.pools))]
        return [rate / total for rate in rates]


def table_of(plan: PlanPayload) -> Table:
    """Return the routing table of a plan.

    Where its buckets have names only (Mélange's files), each pool takes its planned part of all requests.
    """
    names = [row.pool for row in plan.allocation]
    limits = [row.point.engine.max_model_len for row in plan.allocation]
    return Table(names, limits, plan.routing)
