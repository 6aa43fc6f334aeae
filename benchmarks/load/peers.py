"""CPU of a streamed request of 4 tokens: hgpu, GuideLLM and AIPerf against the same mock server.

    python benchmarks/load/peers.py                 # hgpu alone
    python benchmarks/load/peers.py --install DIR   # and the peers, each in an environment of its own

The peers take 7 GB together. Each client is a process of its own that sends two closed loops, a short and a
long one, with 8 requests in flight. The CPU seconds (user and system, with all its children) of the long one
less those of the short one, over the difference in requests, is the cost of a request: starting up is in
neither. The mock server is bound to another core where there is one and is not counted.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hgpu.bench.mock_process import apart, mock_server
from hgpu.bench.selftest import machine

ROOT = Path(__file__).parents[2]
PEERS = {"GuideLLM": "guidellm==0.8.1", "AIPerf": "aiperf==0.13.0"}
IN_FLIGHT = 8
TOKENIZER = (
    "from hgpu.runtime.tiny_model import make_tiny_model as m; from pathlib import Path; m(Path('{}'))"
)
# A client sends about so many requests to a URL and returns how many it sent.
Client = Callable[[str, int], int]


def hgpu_client(folder: Path) -> Client:
    def send(url: str, requests: int) -> int:
        seconds = requests / 400  # 8 in flight, each 20 ms
        words = ["--concurrency", str(IN_FLIGHT), "--lengths", "fixed:16x4", "--duration", f"{seconds:g}"]
        command = [sys.executable, "-m", "hgpu", "bench", "run", url, *words, "--no-selftest", "--json"]
        done = subprocess.run(
            [*command, "--max-lag-ms", "1000"], cwd=folder, check=True, capture_output=True, env=paths()
        )
        return int(json.loads(done.stdout)["points"][0]["requests"])

    return send


def guidellm_client(python: Path, folder: Path, tokenizer: Path) -> Client:
    def send(url: str, requests: int) -> int:
        words = ["--profile", "concurrent", "--rate", str(IN_FLIGHT), "--max-requests", str(requests)]
        data = ["--data", "prompt_tokens=16,output_tokens=4", "--processor", str(tokenizer)]
        command = [python.parent / "guidellm", "benchmark", "run", "--target", url, "--model", "mock"]
        subprocess.run([*command, *words, *data], cwd=folder, check=True, capture_output=True)
        return requests

    return send


def aiperf_client(python: Path, folder: Path, tokenizer: Path) -> Client:
    def send(url: str, requests: int) -> int:
        words = ["--concurrency", str(IN_FLIGHT), "--request-count", str(requests), "--streaming"]
        lengths = ["--synthetic-input-tokens-mean", "16", "--output-tokens-mean", "4"]
        command = [python.parent / "aiperf", "profile", "-m", "mock", "--url", url]
        kind = ["--endpoint-type", "completions", "--tokenizer", str(tokenizer), "--ui", "none"]
        subprocess.run([*command, *words, *lengths, *kind], cwd=folder, check=True, capture_output=True)
        return requests

    return send


def installed(name: str, folder: Path) -> tuple[Path, Path]:
    """Install a peer and return its Python and a tokenizer that it can read."""
    home = folder / name.lower()
    python, tokenizer = home / "bin" / "python", home / "tokenizer"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", PEERS[name], "tokenizers"], check=True)
    subprocess.run([python, "-c", TOKENIZER.format(str(tokenizer))], check=True, env=paths())
    return python, tokenizer


def paths() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def cost_s(client: Client, url: str, sizes: Sequence[int]) -> float:
    """Return CPU seconds a request, by the difference of two loads."""
    spent = []
    for size in sizes:
        before_s = cpu_s()
        spent.append((client(url, size), cpu_s() - before_s))
    (few, few_s), (many, many_s) = spent
    return (many_s - few_s) / (many - few)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--install", type=Path, metavar="DIR", help="measure the peers too, installed there")
    parser.add_argument("--requests", default="500,2500", help="of the short and the long load")
    options = parser.parse_args()
    sizes = [int(size) for size in options.requests.split(",")]
    with tempfile.TemporaryDirectory() as name:
        clients = {"hgpu": hgpu_client(Path(name))}
        if options.install:
            where = options.install.resolve()
            clients["GuideLLM"] = guidellm_client(*_home("GuideLLM", where, Path(name)))
            clients["AIPerf"] = aiperf_client(*_home("AIPerf", where, Path(name)))
        print(
            f"{machine()}; {time.strftime('%Y-%m-%d')}; {IN_FLIGHT} in flight, first token 5 ms, gap 5 ms\n"
        )
        print("| client | CPU µs a request | requests/s and core |\n|---|---:|---:|")
        for client, send in clients.items():
            with apart() as others, mock_server("--first-ms", "5", "--gap-ms", "5", cores=others) as url:
                seconds = cost_s(send, url, sizes)
            print(f"| {client} | {seconds * 1e6:,.0f} | {1 / seconds:,.0f} |", flush=True)


def _home(name: str, where: Path, folder: Path) -> tuple[Path, Path, Path]:
    python, tokenizer = installed(name, where)
    return python, folder, tokenizer


if __name__ == "__main__":
    main()
