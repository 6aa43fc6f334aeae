"""The gate's error rates on made runs, and the project's own results under it."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from hgpu.artifacts.payloads.comparison import ComparedRow, Verdict
from hgpu.artifacts.resolve import resolve
from hgpu.artifacts.store import Draft, save
from hgpu.bench.judging import GateOptions, compare_runs
from hgpu.bench.verdicts import summary

FOLDER = Path(__file__).parents[2] / "benchmarks" / "gate"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"gate_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


noise, own = script("noise"), script("own")


def rows_of(number: int, slower: float) -> list[ComparedRow]:
    import numpy as np

    rng = np.random.default_rng([7, number])
    base, head = noise.made_arms(noise.Noise(run_sd=0.01), 5, 300, slower, rng)
    return compare_runs({"load": base}, {"load": head}, GateOptions(seed=number, resamples=1000))


def share(verdict: Verdict, slower: float, comparisons: int = 40) -> float:
    found = [summary(rows_of(number, slower), [])[0] for number in range(comparisons)]
    return found.count(verdict) / comparisons


def test_the_same_service_is_not_called_worse_and_a_tenth_slower_is() -> None:
    assert share(Verdict.REGRESSED, 1.0) <= 0.05
    assert share(Verdict.REGRESSED, 1.1) >= 0.90


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    rows = [row for number in range(40) for row in rows_of(number, 1.1) if row.unit == "s"]
    held = [row.low <= 0.1 <= row.high for row in rows if row.low is not None and row.high is not None]
    assert len(held) == len(rows) and 0.80 <= sum(held) / len(held) <= 0.98


@pytest.mark.parametrize("times", [1.0, 1.001, 0.99])
def test_a_dearer_plan_than_the_blessed_one_is_stopped(
    tmp_path: Path, times: float, capsys: pytest.CaptureFixture[str]
) -> None:
    base = resolve(own.BASELINES, "@plan-1000rps", "plan")
    payload = base.payload.model_copy(update={"cost_usd_per_hour": base.payload.cost_usd_per_hour * times})
    environment, inputs = base.manifest.environment, base.manifest.inputs
    head = save(tmp_path, Draft("plan", "made", payload, inputs=inputs, environment=environment))
    assert own.compare("plan-1000rps", head.path, tmp_path) == (3 if times > 1 else 0)
    assert ("cost regressed" in capsys.readouterr().out) == (times > 1)


def test_every_baseline_is_there_and_valid() -> None:
    refs = sorted((own.BASELINES / "refs").glob("*/*.json"))
    assert {path.stem for path in refs} == {*(f"plan-{rate}rps" for rate in own.RATES), "simulation", "fit"}
    for path in refs:
        made = resolve(own.BASELINES, f"@{path.stem}", path.parent.name)
        assert made.digest == json.loads(path.read_text())["digest"] and made.manifest.validity.valid
