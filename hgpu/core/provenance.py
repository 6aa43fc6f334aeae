"""Where a number comes from; printed beside it and kept in the artifact."""

from collections.abc import Iterable
from enum import StrEnum


class Provenance(StrEnum):
    """Ordered from the strongest claim to the weakest."""

    MEASURED = "measured"
    FITTED = "fitted"
    SIMULATED = "simulated"
    ESTIMATED = "estimated"


_ORDER = list(Provenance)


def weakest(sources: Iterable[Provenance]) -> Provenance:
    """Return what a figure that rests on all of `sources` may claim."""
    return max(sources, key=_ORDER.index)
