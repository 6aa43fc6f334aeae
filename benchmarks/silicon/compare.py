"""Estimates against the public measurements of `public_rows.csv`.

    pip install 'hgpu[silicon]' && python benchmarks/silicon/compare.py [--from silicon] [--kv-dtype fp8]

Runs `hgpu estimate` on every row, with its defaults or with another format of the KV cache, and prints the
mean error by source, model and GPU.
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

ROWS = Path(__file__).with_name("public_rows.csv")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--from", dest="source", default="silicon", help="silicon, roofline or auto")
    parser.add_argument("--min-tp", type=int, default=1, help="leave out smaller tensor parallel degrees")
    parser.add_argument("--kv-dtype", default="", help="of the KV cache, in every row")
    options = parser.parse_args()
    print("| model | GPU | rows from | rows | TTFT off (mean) | bias | TPOT off (mean) | bias |")
    print("|---|---|---|---:|---:|---:|---:|---:|")
    for (model, gpu, source), errors in sorted(compared(options).items()):
        cells = [cell for row in zip(*errors, strict=True) for cell in figures(row)]
        print(f"| {model} | {gpu} | {source} | {len(errors)} | {' | '.join(cells)} |")


def compared(options: argparse.Namespace) -> dict[tuple[str, str, str], list[tuple[float, float]]]:
    """Relative errors of TTFT and TPOT, by model, GPU and source of the rows."""
    with ROWS.open(newline="") as stream:
        measured = list(csv.DictReader(stream))
    with tempfile.TemporaryDirectory() as folder:
        points = Path(folder, "points.csv")
        with points.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, [*measured[0], "kv_dtype"])
            writer.writeheader()
            writer.writerows({**row, "kv_dtype": options.kv_dtype} for row in measured)
        command = [
            "estimate",
            "--points",
            str(points),
            "--from",
            options.source,
            "--results",
            folder,
            "--json",
        ]
        done = subprocess.run(
            [sys.executable, "-m", "hgpu", *command], capture_output=True, text=True, check=True
        )
    groups = defaultdict(list)
    for row, said in zip(measured, json.loads(done.stdout)["estimates"], strict=True):
        if said["ttft_s"] is not None and int(row["tp"]) >= options.min_tp:
            key = (row["model"].rpartition("/")[2], row["gpu"], row["source"])
            errors = [said[name] / float(row[name]) - 1 for name in ("ttft_s", "tpot_s")]
            groups[key].append((errors[0], errors[1]))
    return groups


def figures(errors: tuple[float, ...]) -> list[str]:
    return [f"{statistics.mean(map(abs, errors)):.1%}", f"{statistics.mean(errors):+.1%}"]


if __name__ == "__main__":
    main()
