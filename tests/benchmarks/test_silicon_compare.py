import csv
import importlib.util
from pathlib import Path
from types import ModuleType

from hgpu.specs.points import read_points

FILE = Path(__file__).parents[2] / "benchmarks" / "silicon" / "compare.py"


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("silicon_compare", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


compare = script()
with compare.ROWS.open(newline="") as stream:
    MEASURED = list(csv.DictReader(stream))


def test_every_source_of_public_rows_has_its_lengths() -> None:
    assert {row["source"] for row in MEASURED} == set(compare.SPREADS)


def test_rows_carry_the_lengths_of_their_source(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    compare.write_points(path, MEASURED, compare.SPREADS, "fp8")
    stated = read_points(path).points
    for row, point in zip(MEASURED, stated, strict=True):
        spread = 0.2 if row["source"].startswith("InferenceMAX") else 0.0
        assert (point.input_spread, point.output_spread, point.kv_dtype) == (spread, spread, "fp8")
    compare.write_points(path, MEASURED, {}, "")
    assert {(p.input_spread, p.output_spread, p.kv_dtype) for p in read_points(path).points} == {
        (None, None, None)
    }


def test_errors_are_grouped_and_rows_without_an_answer_left_out() -> None:
    row = {"model": "a/b", "gpu": "g", "source": "s", "tp": "2", "ttft_s": "2", "tpot_s": "0.1"}
    measured = [row, row, row | {"tp": "1"}]
    said = [{"ttft_s": 3.0, "tpot_s": 0.05}, {"ttft_s": None, "tpot_s": None}, {"ttft_s": 3.0, "tpot_s": 0.1}]
    assert compare.compared(measured, said, min_tp=2) == {("b", "g", "s"): [(0.5, -0.5)]}
