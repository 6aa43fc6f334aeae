"""The simulated four times slower tier gives the published shape, by the rule and by the exact placement."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "tiers"


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("simulated")
    sys.modules.pop("simulated")


@pytest.mark.parametrize("name", ["Qwen2.5-7B, 16 × 4K", "Qwen2.5-7B, 1 × 32K", "Mistral-Nemo-12B, 1 × 32K"])
def test_the_shape_is_the_published_one(simulated: ModuleType, name: str) -> None:
    found = {row.way: row for row in simulated.rows(name, 1.0)}
    only = found["DRAM only"]

    def slower(way: str) -> list[float]:
        return [mine / base for mine, base in zip(found[way].optimizer_s, only.optimizer_s, strict=True)]

    def kept(way: str) -> list[float]:
        return [base / mine for mine, base in zip(found[way].step_s, only.step_s, strict=True)]

    assert slower("all on one card") == pytest.approx([4.0, 4.0, 4.0])
    assert slower("interleaved with one card") == pytest.approx([2.0, 2.25, 2.5])
    for way in ("rule, one card", "exact, one card", "rule, two cards", "exact, two cards"):
        assert min(kept(way)) >= 0.97
    assert max(kept("interleaved with one card")) < 0.95
    assert kept("rule, one card")[2] / kept("interleaved with one card")[2] - 1 <= 0.21


def test_the_exact_placement_is_never_longer_and_shorter_where_level_one_does_not_fit(
    simulated: ModuleType,
) -> None:
    for part in (1.0, 0.8):
        found = {row.way: row for row in simulated.rows("Qwen2.5-7B, 1 × 32K", part)}
        for cards in ("one card", "two cards"):
            pairs = zip(found[f"rule, {cards}"].step_s, found[f"exact, {cards}"].step_s, strict=True)
            gaps = [rule / exact - 1 for rule, exact in pairs]
            assert min(gaps) >= 0 and (part == 1.0 or gaps[2] > 0.03)
