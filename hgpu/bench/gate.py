"""Is head worse than base? Two arms of load tests, whole artifacts."""

from collections import Counter
from collections.abc import Sequence

from hgpu.artifacts.payloads.comparison import Arm, ComparisonPayload
from hgpu.artifacts.payloads.load import LoadPayload
from hgpu.artifacts.store import Artifact
from hgpu.bench.comparability import common, load_keys
from hgpu.bench.doubts import doubts
from hgpu.bench.history import history_of
from hgpu.bench.judging import GateOptions, compare_runs
from hgpu.bench.metrics import metric_of
from hgpu.bench.runs import Run, by_point, runs_of
from hgpu.bench.verdicts import refusals, summary
from hgpu.core.errors import InputError

LoadArtifact = Artifact[LoadPayload]


def compare_loads(
    base: Sequence[LoadArtifact],
    head: Sequence[LoadArtifact],
    options: GateOptions,
    past: Sequence[ComparisonPayload] = (),
) -> ComparisonPayload:
    """Compare two arms of load tests; `past` comparisons of like with like widen tolerances.

    An arm that isn't to be believed, or to be compared, makes the verdict "invalid"; then nothing is judged.
    Raises InputError where a run stands twice, UnknownName for a metric or key that isn't known.
    """
    _check(base, head, options)
    arms = common(_keys(base), _keys(head), options.allow)
    reasons = refusals(arms, [reason for artifact in (*base, *head) for reason in doubts(artifact)])
    history = history_of(past, arms.shared)
    rows = [] if reasons else compare_runs(_runs(base), _runs(head), options, history)
    verdict, why = summary(rows, reasons)
    return ComparisonPayload(
        compares="load",
        base=_arm(base),
        head=_arm(head),
        comparability=arms.shared,
        mismatches=arms.mismatches,
        unknown=arms.unknown,
        like_with_like=options.like_with_like,
        confidence=options.confidence,
        resamples=options.resamples,
        seed=options.seed,
        history=history.comparisons,
        rows=rows,
        verdict=verdict,
        reasons=why,
    )


def _check(base: Sequence[LoadArtifact], head: Sequence[LoadArtifact], options: GateOptions) -> None:
    for name in (*options.tolerances, *options.confirmatory):
        metric_of(name)
    digests = [artifact.digest for artifact in (*base, *head)]
    twice = sorted({digest[:12] for digest in digests if digests.count(digest) > 1})
    if twice:
        raise InputError(
            "a load test stands twice",
            f"{', '.join(twice)}: the same run again is no second run",
            "measure again with `hgpu bench run`, on a fresh server",
        )


def _keys(artifacts: Sequence[LoadArtifact]) -> list[dict[str, str]]:
    return [load_keys(artifact.payload) for artifact in artifacts]


def _runs(artifacts: Sequence[LoadArtifact]) -> dict[str, list[Run]]:
    return by_point([run for artifact in artifacts for run in runs_of(artifact)])


def _arm(artifacts: Sequence[LoadArtifact]) -> Arm:
    runs = Counter(point.name for artifact in artifacts for point in artifact.payload.points)
    return Arm(digests=[artifact.digest for artifact in artifacts], runs=dict(runs))
