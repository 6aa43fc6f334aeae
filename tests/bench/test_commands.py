"""`hgpu bench run`, `search` and `selftest` as a user calls them, against the mock server."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bench.sending import certificate
from tests_types import Run

from hgpu.artifacts.payloads.load import REQUESTS_FILE
from hgpu.artifacts.store import load
from hgpu.bench.mock_process import mock_server

T = TypeVar("T")
# A busy machine makes the generator late; these tests aren't about that.
LATE = ("--max-lag-ms", "5000", "--no-selftest")


def told(done: "subprocess.CompletedProcess[str]", code: int = 0) -> dict[str, object]:
    assert done.returncode == code, done.stderr
    document: dict[str, object] = json.loads(done.stdout)  # one document, whatever came of it
    return document


def test_run_saves_points_requests_and_what_can_be_compared(hgpu: Run, tmp_path: Path) -> None:
    with mock_server("--first-ms", "20") as url:
        words = ("--lengths", "fixed:16x4", "--rate", "20,40", "--concurrency", "4", "--duration", "1")
        slo = ("--slo-ttft-ms", "5000", "--label", "gpu=L4", "--runs", "2")
        document = told(hgpu("bench", "run", f"{url}/v1", *words, *slo, *LATE, "--json"))
    names = ["20 rps", "40 rps", "4 in flight"] * 2
    assert [point["name"] for point in document["points"]] == names
    assert [point["seed"] for point in document["points"]] == [0, 0, 0, 1, 1, 1]
    assert all(point["attainment"]["all"] == 1 for point in document["points"])
    assert document["comparability"]["gpu"] == "L4" and document["comparability"]["model"] == "mock"
    assert document["url"] == url and document["search"] is None
    artifact = load(tmp_path / document["path"])
    table = pq.read_table(artifact.path / REQUESTS_FILE)
    assert table.num_rows == sum(point["requests"] for point in document["points"])
    assert set(table["point"].to_pylist()) == set(range(6)) and set(table["error"].to_pylist()) == {""}
    assert "TTFT p50" in hgpu("show", "latest", "--kind", "load").stdout
    assert artifact.manifest.environment.gpu == "L4" and not list(tmp_path.glob("results/journal/load-*/*"))


def test_a_point_in_an_error_storm_is_invalid_and_kept(hgpu: Run, tmp_path: Path) -> None:
    with mock_server("--fault", "429", "--every", "2") as url:
        words = ("--lengths", "fixed:16x4", "--rate", "40", "--duration", "1", *LATE)
        done = hgpu("bench", "run", url, *words)
        document = told(hgpu("bench", "run", url, *words, "--json"), code=4)
    assert done.returncode == 4 and "INVALID" in done.stdout and "Traceback" not in done.stderr
    point = document["points"][0]
    assert not point["validity"]["valid"] and set(point["error_kinds"]) == {"HTTP 429"}
    assert not load(tmp_path / document["path"]).manifest.validity.valid


def test_a_tls_error_is_told_in_three_lines(hgpu: Run, tmp_path: Path) -> None:
    pem = certificate(tmp_path)
    with mock_server("--certificate", str(pem)) as url:
        words = ("bench", "run", url, "--rate", "10", "--duration", "1", "--lengths", "fixed:8x2", *LATE)
        refused = hgpu(*words)
        trusted = hgpu(*words, env={"SSL_CERT_FILE": str(pem)})
        blind = hgpu(*words, "--model", "mock")
    assert refused.returncode == 1 and "certificate" in refused.stderr and "Traceback" not in refused.stderr
    assert trusted.returncode == 0, trusted.stderr
    assert blind.returncode == 4 and "TLS: self-signed certificate" in blind.stderr


def test_a_killed_run_goes_on_after_its_last_finished_point(hgpu: Run, tmp_path: Path) -> None:
    with mock_server("--first-ms", "5") as url:
        rates = ("--rate", "20,21,22,23", "--duration", "1.5", "--lengths", "fixed:16x4", *LATE)
        words = ("bench", "run", url, *rates, "--json")
        process = subprocess.Popen(
            [sys.executable, "-m", "hgpu", *words], cwd=tmp_path, stderr=subprocess.DEVNULL
        )
        finished = until(lambda: sorted(tmp_path.glob("results/journal/load-*/*.parquet")), at_least=2)
        process.send_signal(signal.SIGKILL)
        process.wait()
        before = {path.name: path.read_bytes() for path in finished}
        assert not list(tmp_path.glob("results/load/*"))
        resumed = hgpu(*words)
        document = told(resumed)
    assert f"going on after {len(before)} finished points" in resumed.stderr
    assert [point["name"] for point in document["points"]] == ["20 rps", "21 rps", "22 rps", "23 rps"]
    table = pq.read_table(tmp_path / document["path"] / REQUESTS_FILE)
    kept = pq.read_table(pa.BufferReader(before["0000.parquet"]))["sent_s"].to_pylist()
    assert table["sent_s"].to_pylist()[: len(kept)] == kept


def test_workers_do_not_outlive_a_killed_run(tmp_path: Path) -> None:
    with mock_server("--first-ms", "5") as url:
        words = ("--rate", "40", "--duration", "60", "--workers", "2", "--lengths", "fixed:16x4", *LATE)
        command = [sys.executable, "-m", "hgpu", "bench", "run", url, *words]
        process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
        workers = until(lambda: psutil.Process(process.pid).children(), at_least=2)
        until(lambda: [worker for worker in workers if worker.net_connections()], at_least=2)
        process.kill()
        process.wait()
        assert not psutil.wait_procs(workers, timeout=20)[1]


def test_verify_sets_a_plan_beside_what_it_does(hgpu: Run) -> None:
    assert hgpu("init", "serve", "--out", "spec.yaml").returncode == 0
    plan = told(hgpu("plan", "spec.yaml", "--estimate", "--json"))
    with mock_server("--first-ms", "20", "--gap-ms", "1") as url:
        done = hgpu("bench", "verify", "latest", url, "--duration", "3", "--json")
    row = told(done, done.returncode)["rows"][0]
    assert "predicted mean" in hgpu("show", "latest", "--kind", "bench").stdout or done.returncode
    assert done.returncode == 0 or "harness" in done.stderr, done.stderr
    assert (
        row["errors"] == 0 and row["ttft_s"]["p50"] > 0.02 and row["tpot_s"]["p50"] > 0.9e-3
    )  # a first token that is read late is taken off the rest
    assert row["rate_rps"] == pytest.approx(sum(pool["rate_rps"] for pool in plan["predicted"]))


def until(look: Callable[[], list[T]], at_least: int) -> list[T]:
    deadline = time.monotonic() + 60
    while len(found := look()) < at_least:
        assert time.monotonic() < deadline
        time.sleep(0.02)  # no event tells that another process has written a file
    return found


def test_search_finds_a_rate_and_says_where_it_ends(hgpu: Run) -> None:
    with mock_server("--first-ms", "10") as url:
        words = ("bench", "search", url, "--lengths", "fixed:16x4", "--percentile", "80", "--duration", "0.5")
        limits = ("--start", "40", "--max-rate", "80", *LATE, "--json")
        found = told(hgpu(*words, "--slo-ttft-ms", "5000", *limits))
        broken = told(hgpu(*words, "--slo-ttft-ms", "1", "--max-duration", "1", *limits), code=3)
    assert found["search"] == {"highest_rps": 80.0, "failed_rps": None, "undecided_rps": []}
    assert [point["name"] for point in found["points"]] == ["40 rps", "80 rps"]
    assert broken["search"]["highest_rps"] == 0 and broken["search"]["failed_rps"] > 0


def test_a_trace_is_replayed_with_its_lengths(hgpu: Run, tmp_path: Path) -> None:
    rows = [
        {"timestamp": 100 * n, "input_length": 600 + n, "output_length": 1 + n, "hash_ids": [1, 2 + n]}
        for n in range(5)
    ]
    (tmp_path / "some.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with mock_server() as url:
        words = ("bench", "run", url, "--trace", "some.jsonl", "--rate", "20", *LATE, "--json")
        point = told(hgpu(*words))["points"][0]
    assert point["name"] == "some 20 rps" and point["arrivals"] == "trace" and point["requests"] == 5
    assert point["input_tokens"] == sum(600 + n for n in range(5)) and point["output_tokens"] == 15
    assert point["duration_s"] == pytest.approx(0.2)


def test_chat_prompts_are_measured_before_they_are_sent(hgpu: Run) -> None:
    with mock_server("--template-tokens", "11") as url:
        words = ("--api", "chat", "--lengths", "uniform:4-40x2-4", "--rate", "40", "--duration", "1")
        done = hgpu("bench", "run", url, *words, *LATE, "--json")
    assert told(done)["points"][0]["errors"] == 0
    assert "lengths were raised" in done.stderr


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["run", "http://127.0.0.1:1"], "can't"),
        (["run", "nowhere", "--model", "m", "--rate", "1"], "bad URL"),
        (["run", "http://h", "--model", "m"], "how much to send"),
        (["run", "http://h", "--model", "m", "--rate", "0"], "bad --rate"),
        (["run", "http://h", "--model", "m", "--rate", "x"], "bad --rate"),
        (["run", "http://h", "--model", "m", "--rate", "1", "--arrivals", "poison"], "did you mean poisson"),
        (["run", "http://h", "--model", "m", "--rate", "1", "--api", "chats"], "did you mean chat"),
        (["run", "http://h", "--model", "m", "--rate", "1", "--lengths", "chatt"], "did you mean chat"),
        (["run", "http://h", "--model", "m", "--rate", "1", "--label", "gpus=2"], "did you mean gpu"),
        (["run", "http://h", "--model", "m", "--concurrency", "1.5"], "bad --concurrency"),
        (["run", "http://h", "--model", "m", "--trace", "none.csv"], "can't read trace"),
        (["search", "http://h", "--model", "m"], "needs an objective"),
    ],
)
def test_bad_input_is_a_short_error(hgpu: Run, words: list[str], text: str) -> None:
    done = hgpu("bench", *words)
    assert done.returncode in ((1,) if text == "can't" else (2,)), done.stderr
    assert text == "can't" or text in done.stderr
    assert "Traceback" not in done.stderr and done.stderr.startswith("error:")


def test_selftest_says_what_the_generator_can_do(hgpu: Run) -> None:
    measured = told(hgpu("bench", "selftest", "--seconds", "0.5", "--json"))
    assert measured["requests_per_s_and_core"] > 1000  # the promise of 5,000 is for a machine that is quiet
    assert (
        0 < measured["added_ttft_p50_s"] < 0.1
        and f"{len(os.sched_getaffinity(0))} cores" in measured["machine"]
    )
