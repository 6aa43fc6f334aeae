"""The expert cache in real vLLM: the same bits as without, clear refusals, no token after a failed copy."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hgpu.core.errors import InputError
from hgpu.latency.expert_hints import ExpertHints
from hgpu.latency.hints_file import save_hints
from hgpu.runtime.tiny_moe import make_tiny_moe

pytestmark = pytest.mark.vllm
imports_vllm = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
ROOT = Path(__file__).parents[2]
EXACT = ROOT / "benchmarks" / "experts" / "exact.py"
FAULTS = ROOT / "tests" / "real" / "expert_faults_once.py"


def started(place: int, *command: str) -> subprocess.Popen[str]:
    """Start a Python on a core of its own, where there are enough."""
    cores = sorted(os.sched_getaffinity(0))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "VLLM_CPU_KVCACHE_SPACE": "1"}
    return subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=lambda: os.sched_setaffinity(0, {cores[place % len(cores)]}),
    )


@pytest.fixture(scope="module")
def small_moe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a mixture with 2 layers of 16 experts, of which a token takes 2."""
    return make_tiny_moe(tmp_path_factory.mktemp("moe"), experts=16, per_token=2, layers=2, expert_size=32)


@pytest.fixture(scope="module")
def reports(small_moe: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what the benchmark says of three caches at 12.5, 25 and 50 %, at batches 1 to 16; and faults."""
    folder = tmp_path_factory.mktemp("reports")
    ranking = np.tile(np.arange(8, dtype=np.int32), (2, 1))
    hints = save_hints(ExpertHints(ranking, ranking.astype(np.int64)), folder / "hints.npz")
    sizes = ("--prompts", "20", "--tokens", "6", "--batches", "1,4,16", "--short")
    to = {name: folder / name for name in ("exact", "faults")}
    commands = {
        "exact": (str(EXACT), str(small_moe), *sizes, "--json", str(to["exact"])),
        "faults": (str(FAULTS), str(small_moe), str(hints), str(to["faults"])),
    }
    running = {name: started(place, *command) for place, (name, command) in enumerate(commands.items())}
    for name, one in running.items():
        _, errors = one.communicate(timeout=400)
        assert to[name].exists(), f"{name}: {errors[-3000:]}"
    return {name: json.loads(path.read_text()) for name, path in to.items()}


@pytest.fixture(scope="module")
def exact(reports: dict[str, Any]) -> dict[str, Any]:
    return reports["exact"]


@pytest.fixture(scope="module")
def faults(reports: dict[str, Any]) -> dict[str, Any]:
    return reports["faults"]


def test_tokens_and_log_probabilities_are_those_of_vllm_without_a_cache(exact: dict[str, Any]) -> None:
    assert len(exact["arms"]) == 3
    for arm in exact["arms"]:
        assert arm["compared_tokens"] > 200
        assert arm["same"]["tokens"] and arm["same"]["logprobs"], arm["cache"]


def test_counters_are_those_of_a_replay_of_the_policy(exact: dict[str, Any]) -> None:
    for arm in exact["arms"]:
        assert arm["same"]["counters"] and arm["same"]["bytes"], arm
        assert arm["counters"]["misses"] > 0 and arm["counters"]["hits"] > 0
    assert [arm["counters"]["prefetch_hits"] > 0 for arm in exact["arms"]] == [False, True, True]
    assert [arm["counters"]["wide_groups"] > 0 for arm in exact["arms"]] == [False, True, False]


def test_resident_bytes_fall(exact: dict[str, Any]) -> None:
    assert [arm["resident_fraction"] for arm in exact["arms"]] == [0.125, 0.25, 0.5]
    assert [arm["wide_fraction"] for arm in exact["arms"]] == [0, 0.5, 0]  # one of the two layers


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("unknown", "hgpu_experts has unknown options: slot;"),
        ("few", "1 slots for 16 experts of which a token takes 2"),
        ("hints", "the hints are of 2 layers of 8 experts"),
        ("layers", "`slots` of hgpu_experts are those of 3 layers"),
        ("compiled", "can't serve compiled models and CUDA graphs"),
        ("monolithic", "can't feed the kernel of backend CPU"),
    ],
)
def test_an_engine_that_cant_be_doesnt_start(faults: dict[str, Any], case: str, said: str) -> None:
    assert faults["refused"][case].startswith("InputError: error: ")
    assert said in faults["refused"][case]


def test_what_vllm_tries_out_before_it_serves_isnt_counted(faults: dict[str, Any]) -> None:
    assert faults["after_trial"] == [0, 0]
    assert faults["tokens"] == [8] * 4


def test_memory_is_bounded_and_results_exact_over_ten_thousand_steps(faults: dict[str, Any]) -> None:
    steps = faults["steps"]
    assert steps["steps"] >= 10_000
    assert (steps["different"], steps["moved"], steps["resident_same"]) == (0, False, True)
    assert steps["grown_bytes"] < 4 * 2**20


def test_new_weights_are_refused(faults: dict[str, Any]) -> None:
    assert "can't take new weights" in faults["reload"]


def test_no_token_follows_a_copy_that_failed(faults: dict[str, Any]) -> None:
    fault = faults["fault"]
    assert fault["first"] == "OSError: the link is down"
    assert (
        "EngineError: error: the expert cache has failed; why: OSError('the link is down')" in fault["second"]
    )
    assert fault["answers"] == []
    assert fault["claims"] > 0 and fault["wrong"] == 0


@contextmanager
def made_under(config: Any) -> Iterator[None]:
    from vllm.config import set_current_vllm_config

    with set_current_vllm_config(config):
        yield


@imports_vllm
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tensor_parallel_size": 2}, "tensor or pipeline parallelism"),
        ({"pipeline_parallel_size": 2}, "tensor or pipeline parallelism"),
        ({"tensor_parallel_size": 2, "enable_expert_parallel": True}, "expert parallelism"),
        ({"quantization": "fp8"}, "quantisation 'fp8'"),
        ({"enforce_eager": False}, "compiled models and CUDA graphs"),
        ({"enable_lora": True}, "LoRA adapters"),
        ({"speculative_config": {"method": "ngram", "num_speculative_tokens": 2}}, "speculative decoding"),
    ],
)
def test_configurations_are_refused(small_moe: Path, options: dict[str, Any], said: str) -> None:
    from vllm.engine.arg_utils import EngineArgs

    from hgpu.runtime.vllm.expert_store import store_here

    rows = {"hgpu_experts": {"slots": 4, "policy": "lru"}}
    given = {"enforce_eager": True, "dtype": "bfloat16", "max_model_len": 256} | options
    config = EngineArgs(str(small_moe), additional_config=rows, **given).create_engine_config()
    with made_under(config), pytest.raises(InputError, match=f"can't serve {said}"):
        store_here()


@imports_vllm
def test_eplb_is_refused(small_moe: Path) -> None:
    from vllm.engine.arg_utils import EngineArgs

    from hgpu.runtime.vllm.expert_refusals import require_engine

    config = EngineArgs(str(small_moe), enforce_eager=True, max_model_len=256).create_engine_config()
    require_engine(config)
    config.parallel_config.enable_eplb = True  # vLLM takes the flag on GPUs only
    with pytest.raises(InputError, match="can't serve EPLB"):
        require_engine(config)


@imports_vllm
def test_a_model_without_experts_is_refused(small_model: Path) -> None:
    from vllm.engine.arg_utils import EngineArgs

    from hgpu.runtime.vllm.expert_store import store_here

    rows = {"hgpu_experts": {"slots": 4, "policy": "lru"}}
    config = EngineArgs(str(small_model), additional_config=rows, enforce_eager=True).create_engine_config()
    with made_under(config), pytest.raises(InputError, match="a model without experts"):
        store_here()


@imports_vllm
@pytest.mark.parametrize(
    ("backend", "has_bias", "said"),
    [("FLASHINFER_CUTLASS", False, "backend FlashInfer CUTLASS"), ("TRITON", True, "experts with a bias")],
)
def test_kernels_that_know_experts_by_number_are_refused(backend: str, has_bias: bool, said: str) -> None:
    from vllm.model_executor.layers.fused_moe.oracle.unquantized import UnquantizedMoeBackend

    from hgpu.runtime.vllm.expert_refusals import require_layer

    method = SimpleNamespace(is_monolithic=False, unquantized_backend=UnquantizedMoeBackend[backend])
    with pytest.raises(InputError, match=said):
        require_layer(SimpleNamespace(has_bias=has_bias), method)
    known = SimpleNamespace(is_monolithic=False, unquantized_backend=UnquantizedMoeBackend.TRITON)
    require_layer(SimpleNamespace(has_bias=False), known)


@imports_vllm
def test_a_vllm_without_the_hooks_is_refused_where_the_cache_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from vllm.model_executor.layers.fused_moe.router.base_router import BaseRouter

    from hgpu.runtime.vllm.expert_plugin import register
    from hgpu.runtime.vllm.features import missing_expert_features

    assert missing_expert_features() == []
    monkeypatch.delattr(BaseRouter, "_compute_routing")
    monkeypatch.setattr(sys, "argv", ["vllm", "serve", "m", "--additional-config", '{"hgpu_experts": {}}'])
    with pytest.raises(InputError, match=r"can't be used in vLLM .*it has no BaseRouter\._compute_routing"):
        register()
    logger = logging.getLogger("vllm.hgpu")
    monkeypatch.setattr(logger, "propagate", False)  # vLLM's parent logger does or doesn't, as it is set up
    logger.addHandler(caplog.handler)
    monkeypatch.setattr(sys, "argv", ["vllm", "serve", "m"])
    register()  # who doesn't ask isn't stopped
    assert "it lacks BaseRouter._compute_routing" in caplog.text


@imports_vllm
def test_another_plugins_hook_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.model_executor.custom_op import op_registry_oot

    from hgpu.runtime.vllm.expert_cache import register_classes
    from hgpu.runtime.vllm.expert_plugin import register

    register()
    register()  # vLLM says that plugins may be called again
    monkeypatch.setitem(op_registry_oot, "VocabParallelEmbedding", object)
    assert register_classes() == ["VocabParallelEmbedding"]
    assert op_registry_oot["VocabParallelEmbedding"] is object
    monkeypatch.setattr(sys, "argv", ["vllm", "serve", "m", "--additional-config", '{"hgpu_experts": {}}'])
    with pytest.raises(InputError, match="another plugin stands in for VocabParallelEmbedding"):
        register()
