"""Telemetry of stand-in cards: what is read, summarised, kept, and what it means for a profile."""

import importlib.util
import threading
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pynvml
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgpu.core.errors import ArtifactError, EngineError
from hgpu.core.step import prefill_batch
from hgpu.profilers.design import Script
from hgpu.profilers.journal import Header, Journal, Run, append, read
from hgpu.profilers.refine import next_run
from hgpu.profilers.telemetry import sampling
from hgpu.profilers.telemetry_rules import HARMFUL, invalid, problems_of, valid_runs
from hgpu.profilers.telemetry_summary import (
    REASONS,
    CardTelemetry,
    Reading,
    RunTelemetry,
    by_card,
    from_json,
    names_of,
    summary_of,
    to_json,
)


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


nvml = _load("standin_nvml")
POWER_CAP, IDLE, CLOCKS_SET = 4, 1, 2


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> list:
    found = [nvml.NvmlCard(), nvml.small_card()]
    nvml.install(monkeypatch.setattr, found)
    return found


def test_the_reasons_are_those_of_nvml() -> None:
    names = {
        "GpuIdle": "idle",
        "ApplicationsClocksSetting": "applications clocks setting",
        "SwPowerCap": "SW power cap",
        "HwSlowdown": "HW slowdown",
        "SyncBoost": "sync boost",
        "SwThermalSlowdown": "SW thermal slowdown",
        "HwThermalSlowdown": "HW thermal slowdown",
        "HwPowerBrakeSlowdown": "HW power brake",
        "DisplayClockSetting": "display clock setting",
    }
    for theirs, ours in names.items():
        assert REASONS[getattr(pynvml, f"nvmlClocksEventReason{theirs}")] == ours
        assert REASONS[getattr(pynvml, f"nvmlClocksThrottleReason{theirs}")] == ours
    assert REASONS[pynvml.nvmlClocksThrottleReasonBoardLimit] == "board limit"
    assert REASONS[pynvml.nvmlClocksThrottleReasonReliability] == "reliability"
    assert set(HARMFUL) <= set(REASONS.values())


def test_a_run_is_read_in_the_units_of_the_names(cards: list) -> None:
    with sampling("0") as sampler:
        sampler.begin()
        (card,) = sampler.end()
    assert card.readings >= 1
    assert replace(card, readings=1, power_mean_w=612.345) == CardTelemetry(
        card="GPU 0",
        readings=1,
        power_mean_w=612.345,
        power_max_w=612.345,
        power_limit_w=700.0,
        sm_min_mhz=1755,
        sm_limit_mhz=1980,
        memory_min_mhz=2619,
        memory_limit_mhz=2619,
        temperature_max_c=61,
        memory_used_max_bytes=72 * 2**30,
        ecc_errors=0,
        throttle=(),
    )


def test_what_a_card_does_not_tell_is_none(cards: list) -> None:
    with sampling("1") as sampler:
        (card,) = sampler.end()
    untold = (card.power_mean_w, card.power_max_w, card.power_limit_w, card.ecc_errors, card.throttle)
    assert untold == (None,) * 5
    assert card.sm_min_mhz == 1755


@pytest.mark.parametrize(
    ("visible", "named"),
    [
        ("0", ["GPU 0"]),
        ("1,0", ["GPU 1", "GPU 0"]),
        (nvml.SMALL_UUID, ["GPU 1"]),
        ("GPU-8f6d2c9a", ["GPU 0"]),
        ("", []),
    ],
)
def test_cards_are_those_that_cuda_sees(cards: list, visible: str, named: list[str]) -> None:
    with sampling(visible) as sampler:
        assert [card.card for card in sampler.end()] == named


def test_a_cpu_asks_nvml_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise AssertionError

    monkeypatch.setattr(pynvml, "nvmlInit", refuse)
    before = threading.active_count()
    with sampling(None) as sampler:
        sampler.begin()
        assert sampler.end() == () and threading.active_count() == before


def test_an_older_driver_is_asked_by_the_older_name(cards: list) -> None:
    cards[0].old_driver, cards[0].reasons = True, POWER_CAP
    with sampling("0") as sampler:
        assert sampler.end()[0].throttle == ("SW power cap",)


def test_the_thread_reads_and_ends_with_the_block(cards: list) -> None:
    told = threading.Event()

    class Told(type(cards[0])):
        def tell(self, value: object) -> object:
            if threading.current_thread().name == "telemetry":
                told.set()
            return super().tell(value)

    cards[0] = Told()
    with sampling("0") as sampler:
        assert told.wait(30)
        assert sampler.end()[0].readings >= 2
    assert "telemetry" not in {thread.name for thread in threading.enumerate()}


def test_errors_count_from_the_run_before(cards: list) -> None:
    cards[0].ecc = 7  # before the engine started
    with sampling("0") as sampler:
        assert sampler.end()[0].ecc_errors == 0
        cards[0].ecc = 9  # between two runs
        sampler.begin()
        assert sampler.end()[0].ecc_errors == 2
        assert sampler.end()[0].ecc_errors == 0


def test_a_lost_card_is_an_error_of_the_run(cards: list) -> None:
    with sampling("0") as sampler:
        cards[0].lost = True
        with pytest.raises(EngineError, match=r"a GPU is lost.*GPU is lost"):
            sampler.end()


def test_a_card_lost_in_the_thread_is_an_error_of_the_run(cards: list) -> None:
    with sampling("0") as sampler:
        thread = next(t for t in threading.enumerate() if t.name == "telemetry")
        cards[0].lost = True
        thread.join(30)
        assert not thread.is_alive()
        cards[0].lost = False
        with pytest.raises(EngineError, match="a GPU is lost"):
            sampler.end()


def test_clocks_of_an_idle_card_do_not_count() -> None:
    readings = [
        Reading(sm_mhz=345, reasons=IDLE),
        Reading(sm_mhz=1740, reasons=CLOCKS_SET),
        Reading(sm_mhz=1755),
    ]
    card = summary_of(CardTelemetry("GPU 0", 0), readings, None)
    assert (card.sm_min_mhz, card.throttle) == (1740, ("idle", "applications clocks setting"))
    assert summary_of(CardTelemetry("GPU 0", 0), readings[:1], None).sm_min_mhz is None


@given(st.lists(st.integers(0, 2**12 - 1)))
def test_names_are_of_the_union_of_bits(masks: list[int]) -> None:
    names = names_of(masks)
    assert all((name in names) == any(mask & bit for mask in masks) for bit, name in REASONS.items())
    assert ("reason 0x800" in names) == any(mask & 2**11 for mask in masks)


# What it means.


def run_of(name: str, repeat: int = 0, **card: object) -> Run:
    telemetry = CardTelemetry("GPU 0", 3, **{"throttle": (), "ecc_errors": 0, "sm_min_mhz": 1755, **card})
    return Run(name, repeat, ((prefill_batch(16), 0.5),), (telemetry,))


def test_a_sound_profile_has_no_problem() -> None:
    idle = [run_of("a", n, throttle=("idle", "applications clocks setting", "sync boost")) for n in range(5)]
    assert problems_of(idle) == []
    assert problems_of([replace(run, telemetry=()) for run in idle]) == []


def test_a_memory_error_takes_the_run_away() -> None:
    runs = [run_of("a"), run_of("a", 1, ecc_errors=2), run_of("a", 2)]
    assert valid_runs(runs) == (runs[0], runs[2])
    assert invalid(runs[1]) == "2 uncorrected ECC errors on GPU 0"
    assert problems_of(runs) == ["a doesn't count in run 2: 2 uncorrected ECC errors on GPU 0"]
    assert not invalid(run_of("a", ecc_errors=None))


def test_throttling_is_named_with_its_share() -> None:
    sound = [run_of("a", repeat) for repeat in range(9)]
    capped, hot = (
        run_of("b", throttle=("idle", "SW power cap")),
        run_of("c", throttle=("SW power cap", "HW slowdown", "HW thermal slowdown")),
    )
    assert problems_of([*sound, capped]) == []
    assert problems_of([*sound[:8], capped, hot]) == [
        "the GPU was throttled in 20% of the runs: "
        "SW power cap in 20%, HW slowdown in 10%, HW thermal slowdown in 10%"
    ]
    untold = [run_of("d", repeat, throttle=None) for repeat in range(90)]
    assert len(problems_of([*sound[:8], capped, hot, *untold])) == 1


def test_a_dropped_clock_is_a_problem_of_its_card() -> None:
    runs = [run_of("a", repeat, sm_min_mhz=1980) for repeat in range(4)]
    assert problems_of([*runs, run_of("b", sm_min_mhz=1782)]) == []
    assert problems_of([*runs, run_of("b", sm_min_mhz=1500), run_of("c", sm_min_mhz=None)]) == [
        "the SM clock of GPU 0 fell to 1500 MHz (median of the runs: 1980 MHz), below 90% of it in 20%"
    ]


def test_an_invalid_run_is_neither_certain_nor_counted_twice() -> None:
    script = Script("a", prefill_tokens=16)
    steps = [((prefill_batch(16), seconds),) for seconds in (0.5, 0.9, 50.0)]
    runs = [replace(run_of("a", n, ecc_errors=n // 2), steps=row) for n, row in enumerate(steps)]
    assert next_run([script], Journal(runs=tuple(runs)), 0.01, 1e3) == (script, 3)
    assert next_run([script], Journal(runs=(runs[2],)), 0.01, 1e3) is None


# How it is kept.


def test_the_journal_keeps_it_and_reads_lines_without_it(tmp_path: Path) -> None:
    path = tmp_path / "profile.jsonl"
    runs = (run_of("a", power_mean_w=None, throttle=("SW power cap",)), run_of("b", throttle=None))
    plain = replace(runs[0], repeat=1, telemetry=())
    append(path, Header("key", "vllm 1", "", "a machine", 4096, 1024))
    for run in (*runs, plain):
        append(path, run)
    assert read(path, "key").runs == (*runs, plain)
    assert b"telemetry" not in path.read_bytes().splitlines()[-1]


def test_the_file_keeps_it_sorted() -> None:
    rows = [
        RunTelemetry(run.script, run.repeat, run.telemetry)
        for run in (run_of("b"), run_of("a", 1), run_of("a"))
    ]
    assert from_json(to_json(rows)) == [rows[2], rows[1], rows[0]]
    assert to_json(rows) == to_json(rows[::-1])
    with pytest.raises(ArtifactError, match="telemetry can't be read"):
        from_json(b'{"runs": [{"script": "a"}]}')


def test_a_card_is_summed_up_over_runs() -> None:
    first = replace(run_of("a").telemetry[0], readings=1, power_mean_w=100.0, power_max_w=100.0)
    second = replace(
        first, readings=3, power_mean_w=300.0, power_max_w=310.0, throttle=("idle",), ecc_errors=2
    )
    third = replace(first, readings=5, power_mean_w=None, power_max_w=None, sm_min_mhz=1400, throttle=None)
    (card,) = by_card(RunTelemetry("a", n, (row,)) for n, row in enumerate((first, second, third)))
    assert (card.readings, card.power_mean_w, card.power_max_w) == (9, 250.0, 310.0)
    assert (card.sm_min_mhz, card.throttle, card.ecc_errors) == (1400, ("idle",), 2)
