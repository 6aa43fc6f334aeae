"""The phase scheduler in real vLLM: the same tokens in another order, and clear refusals."""

import json
import logging
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hgpu.core.errors import InputError
from hgpu.runtime.vllm.options import SCHEDULER

pytestmark = pytest.mark.vllm
imports_vllm = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the torch that it imports
HERE = Path(__file__).parent
STEP = {
    "overhead_s": 0.004,
    "linear_s": 0.004,
    "pair_s": 0.0,
    "kv_s": 0.0,
    "seq_s": 0.0,
    "knee_tokens": 16.0,
    "sharpness": 1.0,
}
FULL = {"ageing_tok_per_s": 15.0, "tpot_s": 0.03, "step": STEP}


def started(model: Path, to: Path, rows: str, place: int) -> subprocess.Popen[str]:
    """Start answering under a scheduler, on a core of its own where there are enough."""
    cores = sorted(os.sched_getaffinity(0))
    command = [
        sys.executable,
        str(HERE / "greedy_once.py"),
        str(cores[place % len(cores)]),
        str(model),
        str(to),
    ]
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[1]), "VLLM_CPU_KVCACHE_SPACE": "1"}
    return subprocess.Popen([*command, rows], stderr=subprocess.PIPE, text=True, env=environment)


@pytest.fixture(scope="module")
def answered(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict]:
    """Return what vLLM's own scheduler and the phase scheduler did with the same 100 prompts."""
    folder = tmp_path_factory.mktemp("answers")
    arms = {"stock": "stock", "phases": json.dumps(FULL)}
    runs = {
        name: started(small_model, folder / name, rows, place)
        for place, (name, rows) in enumerate(arms.items())
    }
    for name, run in runs.items():
        _, errors = run.communicate(timeout=300)
        assert run.returncode == 0, f"{name}: {errors[-3000:]}"
    stock, phases = (json.loads((folder / name).read_text()) for name in arms)
    return stock, phases


def test_tokens_are_those_of_vllms_own_scheduler(answered: tuple[dict, dict]) -> None:
    stock, phases = answered
    assert len(stock["tokens"]) == 100
    assert {len(tokens) for tokens in stock["tokens"]} == {48}
    assert phases["tokens"] == stock["tokens"]


def test_both_preempted_and_shared_prefixes(answered: tuple[dict, dict]) -> None:
    for run in answered:
        assert run["preemptions"] > 0
        assert run["cached_tokens"] > 0


def test_short_prompts_were_first_and_steps_were_held(answered: tuple[dict, dict]) -> None:
    stock, phases = answered
    assert stock["order"] == list(range(100))
    assert sorted(phases["order"]) == stock["order"]
    assert phases["order"] != stock["order"]
    assert (stock["held_steps"], phases["held_steps"] > 0) == (0, True)


def test_an_unknown_option_ends_the_engine_and_is_named(small_model: Path, tmp_path: Path) -> None:
    run = started(small_model, tmp_path / "none", json.dumps({"ageing": 15}), 0)
    _, errors = run.communicate(timeout=300)
    assert run.returncode != 0
    assert "hgpu_phases has unknown options: ageing" in errors


def config(**scheduling: Any) -> Any:
    return SimpleNamespace(scheduler_config=SimpleNamespace(**scheduling))


def test_what_another_scheduler_is_for_is_refused() -> None:
    from hgpu.runtime.vllm.features import require_config

    require_config(config(async_scheduling=False, policy="fcfs"), asynchronous=False)
    with pytest.raises(InputError, match="AsyncPhaseScheduler"):
        require_config(config(async_scheduling=True, policy="fcfs"), asynchronous=False)
    with pytest.raises(InputError, match="policy 'priority'"):
        require_config(config(async_scheduling=False, policy="priority"), asynchronous=False)


@imports_vllm
def test_this_vllm_can_be_steered_and_one_that_lacks_something_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from vllm.v1.request import Request

    from hgpu.runtime.vllm.features import missing_features, require_features

    assert missing_features() == []
    require_features()
    monkeypatch.delattr(Request, "num_tokens")
    with pytest.raises(InputError, match=r"can't steer vLLM .*it has no Request\.num_tokens"):
        require_features()


@imports_vllm
def test_vllm_finds_the_plugin_by_its_entry_point(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("vllm.hgpu")
    monkeypatch.setattr(logger, "propagate", False)  # vLLM's parent logger does or doesn't, as it is set up
    logger.addHandler(caplog.handler)
    logger.setLevel(logging.DEBUG)
    (found,) = entry_points(group="vllm.general_plugins", name="hgpu_phases")
    found.load()()
    assert caplog.messages == [f"hgpu's phase scheduler is there: --scheduler-cls {SCHEDULER}"]
