"""The simulated ablation: what its lanes are made of, and that every arm gives a row."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from hgpu.core.step import StepBatch, prefill_batch

FOLDER = Path(__file__).parents[2] / "benchmarks" / "phases"
DECODES = StepBatch(decode_seqs=32, decode_context_tokens=96_000)


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("simulated")
    for name in ("simulated", "runs", "settings"):
        sys.modules.pop(name)


def test_a_lane_with_what_saturates_the_device_is_as_fast_as_all_of_it(simulated: ModuleType) -> None:
    settings = sys.modules["settings"]
    for setting in simulated.SETTINGS:
        whole = settings.latency_of(setting).step
        chunk = prefill_batch(settings.engine_of(setting).max_num_batched_tokens)
        fast, slow = (settings.partition_of(setting, 0.8, saturates) for saturates in (0.8, 1.0))
        assert fast.prefill.step_s(chunk) == pytest.approx(whole.step_s(chunk))
        assert slow.prefill.step_s(chunk) == pytest.approx(whole.step_s(chunk) / 0.8, rel=0.02)
        half = settings.partition_of(setting, 0.5)
        assert half.decode.step_s(DECODES) == pytest.approx(whole.step_s(DECODES), rel=0.1)
        assert slow.decode.step_s(DECODES) > 2 * whole.step_s(DECODES)
        assert 1 < fast.contention < 1.1


def test_every_arm_gives_a_row_and_the_highest_load_stops_at_the_first_miss(simulated: ModuleType) -> None:
    runs = sys.modules["runs"]
    setting = simulated.SETTINGS[1]
    rows = {arm.name: runs.measured(runs.Job(setting, arm, 1.2, 1, 60.0, 0.7)) for arm in runs.ARMS}
    assert len({row.requests for row in rows.values()}) == 1
    assert rows[runs.SPF].ttft_mean_s < rows[runs.FCFS].ttft_mean_s
    assert rows[runs.BOTH].tpot_p99_s <= setting.tpot_s < rows[runs.FCFS].tpot_p99_s
    assert rows[runs.LANES].tpot_mean_s < rows[runs.BOTH].tpot_mean_s
    row = rows[runs.FCFS]
    met = dict.fromkeys(simulated.LOADS, 1.0) | {0.7: 0.5}
    found = {
        (row.setting, row.arm, load): simulated.replace(row, load=load, met=met[load])
        for load in simulated.LOADS
    }
    assert simulated.highest_load(found, row.setting, row.arm) == "0.6"
