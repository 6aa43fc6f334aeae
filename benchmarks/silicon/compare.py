"""Estimates against the public measurements of `public_rows.csv`.

    pip install 'hgpu[silicon]' && python benchmarks/silicon/compare.py [--from silicon] [--kv-dtype fp8]

Runs `hgpu estimate` on every row twice, with the default lengths and with those of the row's source, and
prints the mean error by source, model and GPU.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

ROWS = Path(__file__).with_name("public_rows.csv")

# How lengths were drawn. InferenceMAX's scripts say it. The gap analysis doesn't: exact lengths, as common
# load generators send by default, are concluded from its figures (README).
SPREADS = {
    "InferenceMAX 2025-10-29": {"input_spread": "0.2", "output_spread": "0.2"},
    "aiconfigurator gap analysis": {"input_spread": "0", "output_spread": "0"},
}
Errors = dict[tuple[str, str, str], list[tuple[float, float]]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--from", dest="source", default="silicon", help="silicon, roofline or auto")
    parser.add_argument("--min-tp", type=int, default=1, help="leave out smaller tensor parallel degrees")
    parser.add_argument("--kv-dtype", default="", help="of the KV cache, in every row")
    options = parser.parse_args()
    with ROWS.open(newline="") as stream:
        measured = list(csv.DictReader(stream))
    with tempfile.TemporaryDirectory() as folder:
        for title, spreads in (("Default lengths:", {}), ("Lengths of each source:", SPREADS)):
            points = Path(folder, "points.csv")
            write_points(points, measured, spreads, options.kv_dtype)
            estimates = estimated(points, options.source, folder)
            print_table(title, compared(measured, estimates, options.min_tp))


def write_points(
    path: Path, measured: list[dict[str, str]], spreads: dict[str, dict[str, str]], kv_dtype: str
) -> None:
    """Write the rows as a points file; `spreads` by source, others stay at the default."""
    with path.open("w", newline="") as stream:
        columns = [*measured[0], "kv_dtype", "input_spread", "output_spread"]
        writer = csv.DictWriter(stream, columns, restval="")
        writer.writeheader()
        writer.writerows({**row, "kv_dtype": kv_dtype, **spreads.get(row["source"], {})} for row in measured)


def estimated(points: Path, source: str, folder: str) -> list[dict[str, Any]]:
    """What `hgpu estimate` says of each row."""
    command = ["estimate", "--points", str(points), "--from", source, "--results", folder, "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "hgpu", *command], capture_output=True, text=True, check=True
    )
    rows: list[dict[str, Any]] = json.loads(done.stdout)["estimates"]
    return rows


def compared(measured: list[dict[str, str]], estimates: list[dict[str, Any]], min_tp: int) -> Errors:
    """Relative errors of TTFT and TPOT, by model, GPU and source of the rows."""
    groups: Errors = defaultdict(list)
    for row, said in zip(measured, estimates, strict=True):
        if said["ttft_s"] is not None and int(row["tp"]) >= min_tp:
            key = (row["model"].rpartition("/")[2], row["gpu"], row["source"])
            errors = [said[name] / float(row[name]) - 1 for name in ("ttft_s", "tpot_s")]
            groups[key].append((errors[0], errors[1]))
    return groups


def print_table(title: str, groups: Errors) -> None:
    print(f"\n{title}\n")
    print("| model | GPU | rows from | rows | TTFT off (mean) | bias | TPOT off (mean) | bias |")
    print("|---|---|---|---:|---:|---:|---:|---:|")
    for (model, gpu, source), errors in sorted(groups.items()):
        cells = [cell for row in zip(*errors, strict=True) for cell in figures(row)]
        print(f"| {model} | {gpu} | {source} | {len(errors)} | {' | '.join(cells)} |")


def figures(errors: tuple[float, ...]) -> list[str]:
    return [f"{statistics.mean(map(abs, errors)):.1%}", f"{statistics.mean(errors):+.1%}"]


if __name__ == "__main__":
    main()
