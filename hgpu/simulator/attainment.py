"""How many requests kept to the objectives."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hgpu.core.slo import Objective, Slo
from hgpu.simulator.result import RequestTimes


@dataclass(frozen=True, slots=True)
class Attained:
    """The part of all requests that kept to an objective."""

    name: str
    objective: Objective
    share: float

    @property
    def met(self) -> bool:
        """Whether that is as many as promised."""
        return self.share * 100 >= self.objective.percentile - 1e-9


@dataclass(frozen=True, slots=True)
class Attainment:
    """Each objective for itself, and how many of the requests kept to every one (goodput)."""

    objectives: tuple[Attained, ...]
    within: int
    requests: int

    @property
    def goodput_share(self) -> float:
        """The part of the requests that kept to every objective."""
        return self.within / self.requests if self.requests else 1.0

    @property
    def met(self) -> bool:
        """Whether every objective was attained."""
        return all(attained.met for attained in self.objectives)


def attainment(served: RequestTimes, requests: int, slo: Slo) -> Attainment:
    """Return what the served of that many requests attained; the others missed every objective.

    A request with one output token has no TPOT and keeps to that objective.
    """
    decodes = np.maximum(served.output_tokens - 1, 1)
    tpot_s = np.where(served.output_tokens > 1, (served.end_s - served.first_token_s) / decodes, 0.0)
    rows = (("ttft", slo.ttft, served.ttft_s), ("tpot", slo.tpot, tpot_s), ("e2e", slo.e2e, served.e2e_s))
    every = np.ones(len(tpot_s), np.bool_)
    objectives = []
    for name, objective, values_s in rows:
        if objective:
            within: npt.NDArray[np.bool_] = values_s <= objective.limit_s
            every &= within
            share = int(within.sum()) / requests if requests else 1.0
            objectives.append(Attained(name, objective, share))
    return Attainment(tuple(objectives), int(every.sum()), requests)
