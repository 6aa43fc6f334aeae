import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from runtime.control.engine_metrics import Engine, serving
from tests_types import Run

QUICK = ("--interval", "0.1")


@pytest.fixture
def plan(hgpu: Run) -> dict[str, object]:
    """A plan of one pool."""
    assert hgpu("init", "serve", "--out", "spec.yaml").returncode == 0
    done = hgpu("plan", "spec.yaml", "--estimate", "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert len(made["allocation"]) == 1
    return dict(made)


@pytest.fixture
def engine() -> Iterator[tuple[Engine, str]]:
    made = Engine()
    with serving(made) as url:
        yield made, url


def test_once_prints_a_decision_for_the_planned_load(
    hgpu: Run, plan: dict[str, object], engine: tuple[Engine, str]
) -> None:
    """Nobody asks yet: the plan's rate is the floor, so its fleet is the answer."""
    done = hgpu("autoscale", "latest", "--metrics", engine[1], "--once", "--json", *QUICK)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    (row,) = document["pools"]
    (planned,) = plan["allocation"]  # type: ignore[misc]
    assert row["pool"] == planned["pool"] and row["answering"] == 1
    assert row["engines"] == row["goal"] == planned["engines"]
    assert document["status"] == "solved" and document["rate_rps"] == 0
    assert document["plan"] == plan["digest"]
    shown = hgpu("autoscale", "latest", "--metrics", engine[1], "--once", *QUICK)
    assert "to carry" in shown.stdout and row["pool"] in shown.stdout


def test_a_load_beyond_the_cap_is_exit_3_and_keeps_to_it(
    hgpu: Run, plan: dict[str, object], engine: tuple[Engine, str]
) -> None:
    engine[0].at_each_look = 20_000
    (planned,) = plan["allocation"]  # type: ignore[misc]
    cap = f"{planned['pool']}=3"
    words = ("--metrics", engine[1], "--max", cap, "--once", "--json", *QUICK)
    done = hgpu("autoscale", "latest", *words)
    assert done.returncode == 3, done.stderr
    document = json.loads(done.stdout)
    assert document["status"] == "capped" and document["served"] < 1
    assert document["pools"][0]["engines"] == 3 and cap.split("=")[0] in document["reason"]


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (("--json",), 2, "--json is of one decision"),
        (("--once", "--listen", "127.0.0.1:0"), 2, "contradict"),
        (("--once", "--max", "t4=2"), 2, "unknown pool"),
        (("--once", "--max", "l4"), 2, "is no cap"),
        (("--listen", "nowhere"), 2, "no address"),
    ],
)
def test_bad_words_are_refused(
    hgpu: Run,
    plan: dict[str, object],
    engine: tuple[Engine, str],
    words: tuple[str, ...],
    code: int,
    what: str,
) -> None:
    done = hgpu("autoscale", "latest", "--metrics", engine[1], *words, *QUICK)
    assert done.returncode == code and what in done.stderr


def test_metrics_that_nobody_answers_are_an_error(hgpu: Run, plan: dict[str, object]) -> None:
    done = hgpu("autoscale", "latest", "--metrics", "http://127.0.0.1:1", "--once", *QUICK)
    assert done.returncode == 1 and "couldn't be read twice" in done.stderr


def test_a_pool_without_a_latency_model_is_never_scaled(
    hgpu: Run, plan: dict[str, object], engine: tuple[Engine, str], tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "results" / "latency")
    done = hgpu("autoscale", "latest", "--metrics", engine[1], "--once", *QUICK)
    assert done.returncode == 2 and "can be scaled" in done.stderr


def test_it_listens_answers_and_ends_when_told(
    hgpu: Run, plan: dict[str, object], engine: tuple[Engine, str], tmp_path: Path
) -> None:
    words = ["autoscale", "latest", "--metrics", engine[1], "--listen", "127.0.0.1:0", "--name", "chat"]
    process = subprocess.Popen(
        [sys.executable, "-m", "hgpu", *words, *QUICK],
        cwd=tmp_path,
        env={key: value for key, value in os.environ.items() if key not in ("CI", "HGPU_RESULTS")},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        url = ""
        for line in process.stderr:
            url = line.split()[-1] if line.startswith("listening on") else url
            if "to carry" in line:
                break
        (planned,) = plan["allocation"]  # type: ignore[misc]
        pool = planned["pool"].replace(".", "-")
        with urlopen(f"{url}/metrics/default/chat-{pool}") as answer:
            assert f'{{model_name="chat"}} {planned["engines"] * 100}' in answer.read().decode()
        with pytest.raises(HTTPError, match="404"):
            urlopen(f"{url}/metrics/default/other")
        with urlopen(f"{url}/metrics") as answer:
            assert "hgpu_autoscale_data_age_seconds" in answer.read().decode()
        process.send_signal(signal.SIGINT)
        process.stderr.read()
        assert process.wait(30) == 130
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
