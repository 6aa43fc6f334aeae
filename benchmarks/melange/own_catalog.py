"""hgpu's allocation on its own catalog: about 1,000 buckets × 100 operating points under caps.

    python benchmarks/melange/own_catalog.py [--rates 4 16 64 256 1024] [--gap 0.001]

Random instances (growth.py) have types that hardly differ. Here are those that can be rented: the NVIDIA
types of the catalog at tp 1, 2, 4 and 8 (without V100, which lacks BF16), with the default prices and
estimated latencies of Llama 3.1 8B, through `hgpu plan`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from hgpu.catalog.gpus import gpu_types

BUCKET_EDGES = {"input_edges": (16, 6000), "output_edges": (8, 2000)}
EDGES = 56  # each way; some of the buckets stay empty
CAPS = {"L4": 8, "A10G": 8, "L40S": 4, "A100-80GB": 8, "H100-SXM": 4, "gpus": 400}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rates", nargs="*", type=float, default=[4, 16, 64, 256, 1024], help="requests/s")
    parser.add_argument("--gap", type=float, default=1e-3, help="accept answers this close to the optimum")
    options = parser.parse_args()
    print("| req/s | buckets | shares to choose | fleet | USD/h | status | gap | solve s |")
    print("|---:|---:|---:|---|---:|---|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for rate in options.rates:
            print(row(planned(Path(folder), rate, options.gap)), flush=True)


def planned(folder: Path, rate_rps: float, gap: float) -> dict[str, Any]:
    """Plan at a rate and return the JSON document."""
    edges = {
        name: sorted({1, *np.geomspace(low, high, EDGES).round().astype(int).tolist()})
        for name, (low, high) in BUCKET_EDGES.items()
    }
    spec = {
        "kind": "serve",
        "model": "meta-llama/Llama-3.1-8B-Instruct",
        "workload": {"lengths": "chat", "rate_rps": rate_rps, **edges},
        "slo": {"tpot_ms": 120, "ttft_ms": 2000, "percentile": 99},
        "gpus": [gpu.name for gpu in gpu_types().values() if gpu.vendor == "nvidia" and gpu.name != "V100"],
        "tensor_parallel": [1, 2, 4, 8],
        "limits": CAPS,
    }
    file = folder / "spec.yaml"
    file.write_text(yaml.safe_dump(spec))
    words = [
        "plan",
        str(file),
        "--estimate",
        "--gap",
        str(gap),
        "--json",
        "--results",
        str(folder / "results"),
    ]
    done = subprocess.run([sys.executable, "-m", "hgpu", *words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def row(document: dict[str, Any]) -> str:
    solver = document["solver"]
    engines: Counter[str] = Counter()
    for pool in document["allocation"]:
        engines[pool["gpu"] + (f" tp{pool['tp']}" if pool["tp"] > 1 else "")] += pool["engines"]
    fleet = " + ".join(f"{count} {name}" for name, count in engines.most_common())
    cells = (
        f"{document['workload']['rate_rps']:g}",
        f"{len(document['routing']):,}",
        f"{solver['variables']:,}",
        fleet,
        f"{document['cost_usd_per_hour']:.2f}",
        solver["status"],
        f"{solver['gap']:.2%}",
        f"{solver['solve_s']:.1f}",
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
