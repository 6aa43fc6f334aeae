"""Samples: repeats merge to medians, steps are never mixed up, and parquet keeps them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hgpu.core.errors import ArtifactError
from hgpu.core.step import StepBatch, prefill_batch
from hgpu.profilers.samples import Sample, from_parquet, merge_repeats, merge_steps, noise_of, to_parquet


def decode(seqs: int, context: int) -> StepBatch:
    return StepBatch(decode_seqs=seqs, decode_context_tokens=context)


def test_repeats_become_their_median_with_its_spread() -> None:
    sample = merge_repeats("a", [(decode(2, 10), 0.1), (decode(2, 20), 0.2), (decode(2, 30), 9.0)])
    assert (sample.step_s, sample.repeats, sample.batch.decode_context_tokens) == (0.2, 3, 20)
    assert sample.spread == pytest.approx(1.4826 * 0.1 / 0.2)


def test_decode_steps_merge_by_sequences_and_others_by_place() -> None:
    run = [(prefill_batch(16), 0.5), (decode(1, 17), 0.1), (decode(1, 18), 0.1), (decode(2, 40), 0.2)]
    samples = merge_steps("ladder", [run, run])
    assert [(s.batch.phase, s.repeats) for s in samples] == [("prefill", 2), ("decode", 4), ("decode", 2)]
    assert samples[1].batch.decode_context_tokens == 17.5


def test_steps_that_were_batched_otherwise_are_not_averaged() -> None:
    samples = merge_steps("p", [[(prefill_batch(16), 0.5)], [(prefill_batch(32), 0.9)]])
    assert [(s.batch.prefill_tokens, s.step_s) for s in samples] == [(16, 0.5), (32, 0.9)]


def test_noise_is_of_repeated_steps_only() -> None:
    samples = [Sample("a", decode(1, 1), 1.0, 3, 0.1), Sample("b", decode(1, 1), 1.0, 1, 0.0)]
    assert noise_of(samples) == 0.1
    assert noise_of(samples[1:]) == 0.0


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(max_size=8), st.floats(1e-6, 1e3), st.integers(1, 9)), max_size=8))
def test_parquet_keeps_samples(rows: list[tuple[str, float, int]]) -> None:
    samples = [Sample(name, prefill_batch(n, 3), seconds, n, 0.01) for name, seconds, n in rows]
    assert from_parquet(to_parquet(samples)) == samples


def test_foreign_bytes_are_refused() -> None:
    with pytest.raises(ArtifactError, match="can't be read"):
        from_parquet(b"not parquet")
