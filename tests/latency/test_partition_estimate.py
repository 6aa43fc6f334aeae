from dataclasses import replace

import pytest

from hgpu.catalog.gpus import resolve_gpu
from hgpu.catalog.models import load_model
from hgpu.core.step import StepBatch, prefill_batch
from hgpu.latency.lattice import lattice_of
from hgpu.latency.operators import load_of
from hgpu.latency.partition import phase_times
from hgpu.latency.partition_choice import ChoiceOptions, Goal, choose
from hgpu.latency.partition_estimate import estimated_partition
from hgpu.profilers.efficiency import efficiency_of
from hgpu.profilers.estimate import Roofline

LLAMA = load_model("meta-llama/Llama-3.1-8B")
H200 = resolve_gpu("H200")
ROOFLINE = Roofline(LLAMA, H200, 1, efficiency_of(H200, LLAMA.weight_dtype))
PROMPTS, DECODES = prefill_batch(4096), StepBatch(decode_seqs=64, decode_context_tokens=64 * 2000)
LOAD = load_of(LLAMA, PROMPTS, DECODES)


def test_the_whole_device_without_contention_is_the_roofline() -> None:
    """Which adds the work and the reads of attention, where the longer of the two counts here."""
    model = replace(estimated_partition(ROOFLINE), contention=0.0)
    prefill_s, decode_s = model.phases_s(LOAD, 1.0, 1.0)
    per_seq_s = ROOFLINE.efficiency.sequence_overhead_s
    assert prefill_s == pytest.approx(ROOFLINE.step_s(PROMPTS) - per_seq_s, rel=0.02)
    assert decode_s == pytest.approx(ROOFLINE.step_s(DECODES) - 64 * per_seq_s, rel=0.02)


def test_memory_is_full_from_half_of_the_device_and_compute_only_with_all() -> None:
    model = replace(estimated_partition(ROOFLINE), contention=0.0, overhead_s=0.0)
    (fast, half), (quarter, _) = (model.phases_s(LOAD, share, share) for share in (0.5, 0.25))
    whole, all_of_it = model.phases_s(LOAD, 1.0, 1.0)
    assert half == pytest.approx(all_of_it)
    assert fast == pytest.approx(2 * whole, rel=0.01) and quarter == pytest.approx(4 * whole, rel=0.01)


def test_where_compute_grows_with_the_share_the_slack_says_what_each_goal_chooses() -> None:
    """Decode is near its best from half of an H200 on, prefill only with nearly all of it: so making decode
    fast within 1.3 times prefill's best leaves prefill more than making prefill fast does (docs/pd.md)."""
    times = phase_times(estimated_partition(ROOFLINE), LOAD, lattice_of(H200))
    prefill, decode = (choose(times, goal, ChoiceOptions()).split for goal in (Goal.PREFILL, Goal.DECODE))
    assert prefill.decode_share == pytest.approx(0.5 / 1.1, abs=0.05)
    assert decode.prefill_share == pytest.approx(times.splits[-1].prefill_share / 1.3, abs=0.05)
    wide = choose(times, Goal.DECODE, ChoiceOptions(prefill_slack=2.5)).split
    assert wide.prefill_units < prefill.prefill_units


def test_tensor_parallel_devices_are_each_as_one() -> None:
    two = Roofline(LLAMA, H200, 2, ROOFLINE.efficiency)
    assert estimated_partition(two) == estimated_partition(ROOFLINE)
