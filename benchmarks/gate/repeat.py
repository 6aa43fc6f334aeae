"""A/A comparisons of one real server: how often does the gate cry wolf?

    python benchmarks/gate/repeat.py URL [--comparisons 10] [--runs 3] [--seconds 10] [--rate 4]

Sends the same load again and again, as arms A B B A A B …, and compares neighbours. Nothing changed between
them, so every "regressed" is false. Prints a line a comparison and a summary.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--comparisons", type=int, default=10)
    parser.add_argument("--runs", type=int, default=3, help="of an arm; the gate judges from 3 on")
    parser.add_argument("--seconds", type=float, default=10.0, help="of a run")
    parser.add_argument("--rate", type=float, default=4.0, help="requests/s")
    parser.add_argument("--lengths", default="uniform:16-128x16-64")
    parser.add_argument("--metric", nargs="*", default=[], help="decide by these instead of the usual ones")
    given = parser.parse_args()
    verdicts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(given.comparisons):
            arms = [sent(folder, given), sent(folder, given)]
            if number % 2:
                arms.reverse()  # A B B A: a drift of the machine favours neither arm
            row = compared(folder, *arms, given.metric)
            verdicts[row["verdict"]] += 1
            deciding = [r for r in row["rows"] if r["confirmatory"] and r["change"] is not None]
            changes = ", ".join(f"{r['metric']} {r['change']:+.1%}" for r in deciding)
            why = "" if changes else "; ".join(row["reasons"])
            print(f"| {number + 1} | {row['verdict']} | {changes or why} |", flush=True)
    print("\n" + ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items())))


def sent(folder: str, given: argparse.Namespace) -> str:
    """Send an arm and return its digest; a point that a busy moment voided is sent again."""
    words = ["bench", "run", given.url, "--lengths", given.lengths, "--rate", str(given.rate)]
    words += ["--duration", str(given.seconds), "--runs", str(given.runs), "--no-selftest", "--json"]
    for _ in range(3):
        done = hgpu(folder, *words)
        if done.returncode == 0:
            return str(json.loads(done.stdout)["digest"])
        print(f"sent again: {done.stderr.splitlines()[-2:]}", file=sys.stderr)
    raise SystemExit(done.stderr)


def compared(folder: str, base: str, head: str, metrics: list[str]) -> dict[str, Any]:
    """Compare two arms: the same lengths and moments, other prompts."""
    deciding = [word for metric in metrics for word in ("--metric", metric)]
    done = hgpu(folder, "bench", "compare", base, head, *deciding, "--json")
    if not done.stdout.startswith("{"):
        raise SystemExit(done.stderr)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def hgpu(folder: str, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "hgpu", *words, "--results", folder]
    return subprocess.run(command, capture_output=True, text=True)


if __name__ == "__main__":
    main()
