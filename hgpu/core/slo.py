"""Latency objectives."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Objective:
    """At least `percentile` percent of requests stay within `limit_s` seconds."""

    limit_s: float
    percentile: float = 99.0


@dataclass(frozen=True, slots=True)
class Slo:
    """What a service promises; an absent objective doesn't bind.

    TTFT runs from the intended send to the first token; TPOT is
    (end − first token)/(output tokens − 1); end-to-end is their sum for a request.
    """

    ttft: Objective | None = None
    tpot: Objective | None = None
    e2e: Objective | None = None


@dataclass(frozen=True, slots=True)
class Tier:
    """A part of the requests with objectives of its own; its `share` is of every length bucket."""

    name: str
    share: float
    slo: Slo
