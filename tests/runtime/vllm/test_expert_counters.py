"""The counters of an expert cache, as another process and Prometheus see them."""

from dataclasses import asdict
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from hgpu.runtime.vllm.expert_counters import (
    FILE_VARIABLE,
    METRICS,
    CounterFile,
    ExpertCollector,
    ExpertCounters,
    counters_path,
    read_counters,
)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FILE_VARIABLE, str(tmp_path / "counters"))
    return tmp_path / "counters"


def test_what_is_published_is_read(place: Path) -> None:
    assert read_counters() is None
    file = CounterFile(place)
    counters = ExpertCounters(steps=3, hits=2**40, copied_bytes=2**50, stall_s=0.125)
    file.publish(counters)
    assert read_counters() == counters
    assert place.stat().st_mode & 0o777 == 0o600
    file.close()
    assert read_counters() is None


def test_prometheus_sees_every_counter_once_there_is_an_engine(place: Path) -> None:
    registry = CollectorRegistry()
    registry.register(ExpertCollector())
    assert generate_latest(registry) == b""
    CounterFile(place).publish(ExpertCounters(misses=7, stall_s=0.5, resident_bytes=64))
    lines = generate_latest(registry).decode().splitlines()
    assert {"hgpu_expert_misses_total 7.0", "hgpu_expert_stall_seconds_total 0.5"} <= set(lines)
    assert {"hgpu_expert_resident_bytes 64.0", "# TYPE hgpu_expert_resident_bytes gauge"} <= set(lines)
    assert METRICS.keys() == asdict(ExpertCounters()).keys()


def test_children_find_the_same_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FILE_VARIABLE)
    assert counters_path() == counters_path()
