"""What the router counts, as Prometheus reads it."""

from collections.abc import Iterable, Sequence
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from hgpu.runtime.router.handoff import Outcome
from hgpu.runtime.router.upstream import Pool

_FIRST_BYTE_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """One router's metrics, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._answers = Counter(
            "hgpu_router_answers",
            "Answers by pool (empty: the router's own) and status.",
            ["pool", "status"],
            registry=self.registry,
        )
        self._first_byte_s = Histogram(
            "hgpu_router_first_byte_seconds",
            "From a request's last byte to its answer's first, with all tries.",
            ["pool"],
            buckets=_FIRST_BYTE_S,
            registry=self.registry,
        )
        self.retries = Counter(
            "hgpu_router_failed_tries",
            "Tries that failed before an answer had begun.",
            ["pool"],
            registry=self.registry,
        )
        self.broken = Counter(
            "hgpu_router_broken_answers",
            "Answers that broke off after they had begun.",
            ["pool"],
            registry=self.registry,
        )
        self.beyond_plan = Counter(
            "hgpu_router_beyond_plan",
            "Requests with a longer input than any planned one.",
            registry=self.registry,
        )
        self.bytes_per_token = Gauge(
            "hgpu_router_bytes_per_token",
            "Bytes of prompt text that count as a token.",
            registry=self.registry,
        )
        self._rereads = Counter(
            "hgpu_router_plan_rereads",
            "Plans that were read again, by outcome: followed or refused.",
            ["outcome"],
            registry=self.registry,
        )
        self._handoffs = Counter(
            "hgpu_router_handoffs",
            "Prompts of a pair, by what became of them at its prefill engine.",
            ["pool", "outcome"],
            registry=self.registry,
        )
        self._in_flight = Gauge(
            "hgpu_router_in_flight", "Requests at a pool.", ["pool"], registry=self.registry
        )
        self._healthy = Gauge(
            "hgpu_router_healthy", "1 where a pool answers.", ["pool"], registry=self.registry
        )

    def stand_before(self, pools: Sequence[Pool], leaving: Iterable[Pool]) -> None:
        """Tell of these pools' servers from now on; of those that leave, only what is still in flight."""
        self._in_flight.clear()
        self._healthy.clear()
        servers = [server for pool in pools for server in pool.servers]
        at: dict[str, list[Pool]] = {}
        for server in (*servers, *leaving):
            at.setdefault(server.name, []).append(server)
        for name, ones in at.items():
            self._in_flight.labels(name).set_function(partial(_in_flight, ones))
        for server in servers:
            self._healthy.labels(server.name).set_function(partial(getattr, server, "healthy"))
            self.retries.labels(server.name)
            self.broken.labels(server.name)
        for pair in (pool for pool in pools if pool.prefill):
            for outcome in Outcome:
                self._handoffs.labels(pair.name, outcome)

    def reread(self, outcome: str) -> None:
        """Count a plan that was read again."""
        self._rereads.labels(outcome).inc()

    def answered(self, pool: str, status: int, seconds: float) -> None:
        """Count an answer that begins, that many seconds after its request."""
        self._answers.labels(pool, status).inc()
        if pool:
            self._first_byte_s.labels(pool).observe(seconds)

    def handed_off(self, pool: str, outcome: Outcome) -> None:
        """Count a hand-off, or why there was none."""
        self._handoffs.labels(pool, outcome).inc()


def _in_flight(servers: Iterable[Pool]) -> int:
    return sum(server.in_flight for server in servers)
