"""CPU of a streamed request of 4 tokens, and the TTFT reported: hgpu, GuideLLM and AIPerf on one mock server.

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
from dataclasses import dataclass
from pathlib import Path

from hgpu.bench.mock_process import apart, mock_server
from hgpu.bench.selftest import machine

ROOT = Path(__file__).parents[2]
PEERS = {"GuideLLM": "guidellm==0.8.1", "AIPerf": "aiperf==0.13.0"}
HEADINGS = (
    "client",
    "round",
    "CPU s before",
    "requests",
    "CPU µs each",
    "requests/s and core",
    "TTFT p50, p99 ms",
)
IN_FLIGHT, INPUT_TOKENS, OUTPUT_TOKENS = 8, 16, 4
TOKENIZER = (
    "from hgpu.runtime.tiny_model import make_tiny_model as m; from pathlib import Path; m(Path('{}'))"
)


@dataclass(frozen=True, slots=True)
class Said:
    """What a client says of a load: requests that succeeded, and their TTFT."""

    requests: int
    ttft_p50_ms: float
    ttft_p99_ms: float


# A client sends about so many requests to a URL.
Client = Callable[[str, int], Said]


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU of one request, CPU before the first, and what the client says of the long load."""

    request_s: float
    startup_s: float
    said: Said


def hgpu_client(folder: Path) -> Client:
    def send(url: str, requests: int) -> Said:
        seconds = requests / 400  # 8 in flight, each 20 ms
        lengths = f"fixed:{INPUT_TOKENS}x{OUTPUT_TOKENS}"
        words = ["--concurrency", str(IN_FLIGHT), "--lengths", lengths, "--duration", f"{seconds:g}"]
        command = [sys.executable, "-m", "hgpu", "bench", "run", url, *words, "--no-selftest", "--json"]
        point = json.loads(output(command, folder))["points"][0]
        ttft_s = point["ttft_s"]
        return Said(point["requests"] - point["errors"], ttft_s["p50"] * 1e3, ttft_s["p99"] * 1e3)

    return send


def guidellm_client(python: Path, folder: Path, tokenizer: Path) -> Client:
    def send(url: str, requests: int) -> Said:
        report = folder / "guidellm.json"
        lengths = f"prompt_tokens={INPUT_TOKENS},output_tokens={OUTPUT_TOKENS}"
        words = {
            "--backend": f"kind=openai_http,target={url},model=mock,request_format=/v1/completions",
            "--profile": f"kind=concurrent,streams={IN_FLIGHT}",
            "--constraint": f"kind=max_requests,count={requests}",
            "--tokenizer": f"kind=huggingface_auto,model={tokenizer}",
            "--data": f"kind=synthetic_text,{lengths}",
            "--output": f"kind=json,path={report}",
        }
        output([python.parent / "guidellm", "run", *flat(words), "--disable-console"], folder)
        metrics = json.loads(report.read_text())["benchmarks"][0]["metrics"]
        ttft_ms = metrics["time_to_first_token_ms"]["successful"]["percentiles"]
        return Said(metrics["request_totals"]["successful"], ttft_ms["p50"], ttft_ms["p99"])

    return send


def aiperf_client(python: Path, folder: Path, tokenizer: Path) -> Client:
    def send(url: str, requests: int) -> Said:
        words = {
            "--model": "mock",
            "--url": url,
            "--endpoint-type": "completions",
            "--tokenizer": str(tokenizer),
            "--concurrency": str(IN_FLIGHT),
            "--request-count": str(requests),
            "--synthetic-input-tokens-mean": str(INPUT_TOKENS),
            "--output-tokens-mean": str(OUTPUT_TOKENS),
            "--ui": "none",
            "--artifact-dir": str(folder / "aiperf"),
        }
        cheaper = ["--streaming", "--use-server-token-count"]  # counting tokens itself costs it more
        output([python.parent / "aiperf", "profile", *flat(words), *cheaper], folder)
        said = json.loads((folder / "aiperf" / "profile_export_aiperf.json").read_text())
        ttft_ms = said["time_to_first_token"]
        return Said(int(said["request_count"]["avg"]), ttft_ms["p50"], ttft_ms["p99"])

    return send


def flat(words: dict[str, str]) -> list[str]:
    return [word for pair in words.items() for word in pair]


def output(command: Sequence[str | Path], folder: Path) -> str:
    """Run a client in a folder and return its stdout; its own words are shown where it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=paths())
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


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


def cost_of(client: Client, url: str, sizes: Sequence[int]) -> Cost:
    """Return CPU seconds a request, by the difference of two loads."""
    loads = []
    for size in sizes:
        before_s = cpu_s()
        said = client(url, size)
        loads.append((said, cpu_s() - before_s))
    (few, few_s), (many, many_s) = loads
    request_s = (many_s - few_s) / (many.requests - few.requests)
    return Cost(request_s, few_s - few.requests * request_s, many)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--install", type=Path, metavar="DIR", help="measure the peers too, installed there")
    parser.add_argument("--requests", default="500,2500", help="of the short and the long load")
    parser.add_argument("--first-ms", type=float, default=5.0, help="the server's time to the first token")
    parser.add_argument("--gap-ms", type=float, default=5.0, help="and between two")
    parser.add_argument("--rounds", type=int, default=3, help="all clients in turn, so often")
    options = parser.parse_args()
    sizes = [int(size) for size in options.requests.split(",")]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clients = {"hgpu": hgpu_client(folder)}
        if options.install:
            where = options.install.resolve()
            python, tokenizer = installed("GuideLLM", where)
            clients["GuideLLM"] = guidellm_client(python, folder, tokenizer)
            python, tokenizer = installed("AIPerf", where)
            clients["AIPerf"] = aiperf_client(python, folder, tokenizer)
        server = ["--first-ms", f"{options.first_ms:g}", "--gap-ms", f"{options.gap_ms:g}"]
        print(f"{machine()}; {time.strftime('%Y-%m-%d')}; {IN_FLIGHT} in flight, {' '.join(server)}\n")
        print(f"| {' | '.join(HEADINGS)} |\n|---|---:|---:|---:|---:|---:|---|")
        for number in range(options.rounds):
            for client, send in clients.items():
                with apart() as others, mock_server(*server, cores=others) as url:
                    print_row(client, number + 1, cost_of(send, url, sizes))


def print_row(client: str, number: int, cost: Cost) -> None:
    each = f"{cost.request_s * 1e6:,.0f} | {1 / cost.request_s:,.0f}"
    ttft = f"{cost.said.ttft_p50_ms:.2f}, {cost.said.ttft_p99_ms:.2f}"
    print(
        f"| {client} | {number} | {cost.startup_s:.1f} | {cost.said.requests:,} | {each} | {ttft} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
