"""Step samples: the raw material of a latency model."""

import io
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass

from hgpu.core.errors import ArtifactError
from hgpu.core.step import StepBatch

_OWN = ("script", "step_s", "repeats", "spread")  # columns beside those of StepBatch
NORMAL_MAD = 1.4826  # median absolute deviation to standard deviation, for normal noise


@dataclass(frozen=True, slots=True)
class Sample:
    """One engine step, or the median of `repeats` runs of the same step.

    `script` names the designed batch that it belongs to: samples of one script are left out
    together when a fit is cross-validated. `spread` is the relative standard deviation of
    the repeats (0 for a single or a computed one).
    """

    script: str
    batch: StepBatch
    step_s: float
    repeats: int = 1
    spread: float = 0.0


def merge_repeats(script: str, runs: Sequence[tuple[StepBatch, float]]) -> Sample:
    """Return the median of repeated steps, with its spread; batches are averaged."""
    times = [seconds for _, seconds in runs]
    middle = statistics.median(times)
    spread = NORMAL_MAD * statistics.median(abs(t - middle) for t in times) / middle
    rows = [asdict(batch) for batch, _ in runs]
    mean = StepBatch(**{key: statistics.fmean(row[key] for row in rows) for key in rows[0]})
    return Sample(script, mean, middle, len(runs), spread)


def merge_steps(script: str, runs: Sequence[Sequence[tuple[StepBatch, float]]]) -> list[Sample]:
    """Return one sample a step of the script, over its runs.

    Decode steps of equally many sequences are one sample: they differ only by a token of
    context. Any other step is told by its place and its batch, so that runs which an engine
    batched otherwise are never averaged.
    """
    groups: dict[tuple[float, ...], list[tuple[StepBatch, float]]] = {}
    for steps in runs:
        for place, (batch, seconds) in enumerate(steps):
            key = (batch.decode_seqs,) if batch.phase == "decode" else (place, *astuple(batch))
            groups.setdefault(key, []).append((batch, seconds))
    return [merge_repeats(script, group) for group in groups.values()]


def noise_of(samples: Iterable[Sample]) -> float:
    """Return the median relative spread of repeated steps, 0 where nothing was repeated."""
    spreads = [s.spread for s in samples if s.repeats > 1]
    return statistics.median(spreads) if spreads else 0.0


def to_parquet(samples: Sequence[Sample]) -> bytes:
    """Return the samples as the bytes of a parquet table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {"script": s.script, **asdict(s.batch), "step_s": s.step_s, "repeats": s.repeats, "spread": s.spread}
        for s in samples
    ]
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), stream)
    return stream.getvalue()


def from_parquet(content: bytes) -> list[Sample]:
    """Return the samples in the bytes of a parquet table, or raise ArtifactError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(io.BytesIO(content)).to_pylist()
        return [Sample(**{name: row.pop(name) for name in _OWN}, batch=StepBatch(**row)) for row in rows]
    except (pa.ArrowException, KeyError, TypeError) as error:
        raise ArtifactError("the profile's samples can't be read", str(error), "profile again") from error
