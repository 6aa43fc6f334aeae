"""`hgpu bench run`, `search` and `compare` on real vLLM: token counts hold, and a slower engine is seen."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests_types import Run

from hgpu.catalog.gpus import resolve_gpu
from hgpu.core.gpu import DType
from hgpu.core.operating_point import EngineOptions, OperatingPoint
from hgpu.profilers.vllm_args import SERVER_MODULE, command_line, engine_environment
from hgpu.runtime.health import Server, wait_healthy
from hgpu.runtime.ports import free_ports, local_url

pytestmark = pytest.mark.vllm
TEMPLATE = "{% for message in messages %}user: {{ message['content'] }}\n{% endfor %}assistant:"
# Engine and generator share the cores of a test machine: the generator may be late.
CALM = ("--max-lag-ms", "5000", "--no-selftest", "--json")
ENGINE_CORE = min(os.sched_getaffinity(0))


@pytest.fixture(scope="module")
def url(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real vLLM server on one core."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "template.jinja").write_text(TEMPLATE)
    engine = EngineOptions(256, 8, 512, enforce_eager=True)
    point = OperatingPoint("cpu-1core", dtype=DType.FP32, engine=engine)
    gpu = resolve_gpu(point.gpu)
    (port,) = free_ports(1)
    options = ["--host", "127.0.0.1", "--port", str(port), "--chat-template", str(folder / "template.jinja")]
    command = [sys.executable, "-m", SERVER_MODULE, *command_line(str(small_model), point, gpu, "dummy")]
    environment = os.environ | engine_environment(str(small_model), point, gpu, [ENGINE_CORE], [])
    log = folder / "server.log"
    with log.open("wb") as stream:
        process = subprocess.Popen([*command, *options], env=environment, stdout=stream, stderr=stream)
        try:
            wait_healthy([Server("vllm", local_url(port), log, lambda: process.poll() is None)], 300)
            yield local_url(port)
        finally:
            process.terminate()
            process.wait(60)


def measured(hgpu: Run, *words: str) -> dict[str, object]:
    done = hgpu("bench", *words, *CALM)
    assert done.returncode == 0, done.stderr
    document: dict[str, object] = json.loads(done.stdout)
    return document


def test_run_has_exact_tokens_and_knows_the_engine(hgpu: Run, url: str) -> None:
    words = ("--lengths", "uniform:16-64x4-8", "--rate", "4", "--concurrency", "2", "--duration", "3")
    document = measured(hgpu, "run", url, *words, "--slo-ttft-ms", "20000")
    assert document["comparability"]["engine"].startswith("vllm 0.")
    for point in document["points"]:
        assert point["errors"] == 0 and point["requests"] >= 3, point["error_kinds"]
        assert 0 < point["ttft_s"]["p50"] < point["e2e_s"]["p50"] and point["tpot_s"]["p50"] > 0
        assert 16 <= point["input_tokens"] / point["requests"] <= 64


def test_chat_prompts_have_exactly_the_tokens_that_vllm_counts(hgpu: Run, url: str) -> None:
    document = measured(
        hgpu, "run", url, "--api", "chat", "--lengths", "fixed:40x4", "--rate", "3", "--duration", "2"
    )
    (point,) = document["points"]
    assert point["errors"] == 0, point["error_kinds"]
    assert point["input_tokens"] == 40 * point["requests"]


def test_search_ends_with_a_rate(hgpu: Run, url: str) -> None:
    words = ("--lengths", "fixed:16x2", "--slo-ttft-ms", "20000", "--percentile", "60", "--duration", "2")
    document = measured(hgpu, "search", url, *words, "--start", "2", "--max-rate", "4")
    assert document["search"]["highest_rps"] == 4
    assert [point["name"] for point in document["points"]] == ["2 rps", "4 rps"]


@contextmanager
def most_of_the_core_taken() -> Iterator[None]:
    """Three busy processes beside the engine, on its core: the engine gets a quarter of what it had."""
    spin = f"import os; os.sched_setaffinity(0, [{ENGINE_CORE}]); print(flush=True)\nwhile True: pass"
    spinning = [subprocess.Popen([sys.executable, "-c", spin], stdout=subprocess.PIPE) for _ in range(3)]
    try:
        for process in spinning:
            assert process.stdout is not None  # asked for above
            process.stdout.readline()
        yield
    finally:
        for process in spinning:
            process.kill()
            process.communicate()


def test_compare_sees_an_engine_that_lost_its_core_and_nothing_else(hgpu: Run, url: str) -> None:
    """Where other work spoils runs, the gate can't tell and asks for more of them: it gets them."""

    def arm() -> str:
        load = ("--lengths", "uniform:16-64x8-12", "--concurrency", "1", "--duration", "4", "--runs", "3")
        return str(measured(hgpu, "run", url, *load)["digest"])

    def compared(base: list[str], head: list[str]) -> tuple[int, dict[str, str]]:
        words = ("--tolerance", "tpot_p50=0.25", "--metric", "tpot_p50", "--metric", "failed", "--json")
        done = hgpu("bench", "compare", ",".join(base), ",".join(head), *words)
        document = json.loads(done.stdout)
        return done.returncode, {
            row["metric"]: row["verdict"] for row in document["rows"] if row["confirmatory"]
        }

    base: list[str] = []
    again: list[str] = []
    slowed: list[str] = []
    for _ in range(3):
        base.append(arm())
        again.append(arm())
        with most_of_the_core_taken():
            slowed.append(arm())
        code, verdicts = compared(base, slowed)
        if code != 5:
            break
    assert code == 3 and verdicts == {"tpot_p50": "regressed", "failed": "ok"}
    code, verdicts = compared(base, again)
    assert code in (0, 5) and verdicts["failed"] == "ok", verdicts
