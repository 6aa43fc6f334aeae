"""One entry to both ways of comparing: noisy load tests by statistics, deterministic artifacts exactly."""

from collections.abc import Sequence
from typing import Any

from hgpu.artifacts.payloads.comparison import ComparisonPayload
from hgpu.artifacts.store import Artifact
from hgpu.bench.exact import compare_exactly
from hgpu.bench.facts import EXACT
from hgpu.bench.gate import compare_loads
from hgpu.bench.judging import GateOptions
from hgpu.core.errors import InputError

COMPARABLE = ("load", *EXACT)


def compare(
    base: Sequence[Artifact[Any]],
    head: Sequence[Artifact[Any]],
    options: GateOptions,
    past: Sequence[ComparisonPayload] = (),
) -> ComparisonPayload:
    """Compare two arms of artifacts of one kind. Raises InputError where they aren't."""
    kinds = sorted({artifact.manifest.kind for artifact in (*base, *head)})
    if len(kinds) != 1 or kinds[0] not in COMPARABLE:
        raise InputError(
            f"can't compare {' with '.join(kinds)}",
            f"all must be of one kind: {', '.join(COMPARABLE)}",
            "see `hgpu list` for what there is",
        )
    if kinds[0] == "load":
        return compare_loads(base, head, options, past)
    if len(base) != 1 or len(head) != 1:
        raise InputError(
            f"a {kinds[0]} is compared with one other",
            f"{len(base)} and {len(head)} are given; only runs of a load test are repeated",
            "name one of each",
        )
    return compare_exactly(base[0], head[0], options)
