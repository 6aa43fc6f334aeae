"""`hgpu tune` by two processes, which talk over Gloo here: the same course as one, and how it ends."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from real.weights import write_weights

from hgpu.artifacts.payloads.tuning import TuningPayload
from hgpu.artifacts.resolve import entries
from hgpu.artifacts.store import load
from hgpu.core.errors import EngineError, InputError
from hgpu.core.training import Method, Sharding
from hgpu.runtime.tiny_model import make_tiny_model
from hgpu.specs.finetune import FinetuneSpec
from hgpu.tuning.job import TuneJob, job_of
from hgpu.tuning.launch import first_error, launch
from hgpu.tuning.ranks import buckets
from hgpu.tuning.run import tune

pytestmark = pytest.mark.vllm
WAYS = [(method, sharding) for sharding in Sharding for method in Method]
ENDED = [(Method.FULL, Sharding.NONE), (Method.FULL, Sharding.ZERO3), (Method.LAMDA, Sharding.ZERO3)]
END = 10  # the step in which they are ended: after the second checkpoint
NARROW = [(Method.FULL, Sharding.ZERO3), (Method.LORA, Sharding.ZERO3)]


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A spec of a small fine-tune: 3 checkpoints, with B of LaMDA half frozen at the second."""
    folder = tmp_path_factory.mktemp("ranks")
    write_weights(make_tiny_model(folder / "model", hidden_size=64, layers=2))
    write_untied(folder / "model", folder / "untied")
    source = Path(json.__file__).read_text(encoding="utf-8")
    (folder / "data.jsonl").write_text("".join(json.dumps({"text": source}) + "\n" for _ in range(4)))
    pairs = [{"prompt": "x" * (n % 9 + 1), "completion": " yes" * (1 + n % 4)} for n in range(60)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return {
        "kind": "finetune",
        "model": str(folder / "model"),
        "data": str(folder / "data.jsonl"),
        "dtype": "fp32",
        "method": "lamda",
        "rank": 4,
        "targets": ["q_proj", "v_proj", "up_proj"],
        "freeze_share": 1.0,
        "context": 48,
        "batch": 8,
        "micro_batch": 2,
        "steps": 12,
        "learning_rate": 2e-3,
        "weight_decay": 0.1,
        "save_every_steps": 4,
        "data_parallel": 2,
        "sharding": "none",
    }


def write_untied(model: Path, folder: Path) -> None:
    """Write a copy of a model whose head isn't its embedding."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"][::-1].copy()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def spectral(document: dict[str, Any]) -> dict[str, Any]:
    """A LaMDA++ run: its ranks come of singular values, which the processes share too."""
    return {**document, "rank": 12, "rank_allocation": "energy", "steps": 4}


def narrow(document: dict[str, Any]) -> dict[str, Any]:
    """Another model, in 16 bits."""
    return {**document, "model": f"{document['model']}/../untied", "dtype": "bf16", "checkpointing": True}


def trained_by(document: dict[str, Any], method: Method) -> dict[str, Any]:
    """The run of a method: LoRA's learns completions, of which no two processes have as many tokens."""
    name = "pairs.jsonl" if method is Method.LORA else "data.jsonl"
    return {**document, "method": method, "data": str(Path(document["data"]).with_name(name))}


def job(document: dict[str, Any], **changes: Any) -> TuneJob:
    return job_of(FinetuneSpec.model_validate({**document, **changes}))


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **changes}


@pytest.fixture(scope="module")
def pairs(document: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The results of every method, each by two processes that torchrun started."""
    folder = tmp_path_factory.mktemp("pairs")
    jobs = [
        {"job": asdict(job(trained_by(given, method), sharding=sharding)), "end": end}
        for ways, end, given in (
            (WAYS, 0, document),
            (ENDED, END, document),
            (NARROW, 0, narrow(document)),
            ([(Method.LAMDA, Sharding.NONE)], 0, spectral(document)),
        )
        for method, sharding in ways
    ]
    (folder / "jobs.json").write_text(json.dumps(jobs))
    script = Path(__file__).with_name("tune_ranks_once.py")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", "--nproc-per-node=2"]
    words = [sys.executable, *launcher, str(script), str(folder / "jobs.json"), str(folder)]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [folder / str(number) for number in range(len(jobs))]


def only(root: Path) -> TuningPayload:
    """What a root's one artifact holds."""
    (found,) = entries(root, "tuning")
    payload: TuningPayload = load(found.path).payload
    return payload


@pytest.mark.parametrize(("method", "sharding"), WAYS)
def test_two_processes_train_as_one(
    document: dict[str, Any], pairs: list[Path], tmp_path: Path, method: Method, sharding: Sharding
) -> None:
    pair = only(pairs[WAYS.index((method, sharding))])
    tune(job(trained_by(document, method), data_parallel=1), tmp_path, lambda *_: None, lambda _: None)
    one = only(tmp_path)
    assert (one.processes, pair.processes, pair.sharding) == (1, 2, sharding)
    assert pair.losses == pytest.approx(one.losses, rel=1e-5)
    assert pair.losses[-1] < pair.losses[0] - 0.01, "nothing was learnt"
    assert pair.held_out and one.held_out
    assert pair.held_out.before == pytest.approx(one.held_out.before, rel=1e-5)
    assert pair.held_out.after == pytest.approx(one.held_out.after, rel=1e-5)
    assert pair.trained == one.trained
    assert pair.held_out.sequences % 4 != 0, "the last passes aren't shared evenly"


@pytest.mark.parametrize("way", ENDED)
def test_two_processes_that_were_ended_go_on_to_the_same_losses_and_weights(
    pairs: list[Path], way: tuple[Method, Sharding]
) -> None:
    whole, resumed = only(pairs[WAYS.index(way)]), only(pairs[len(WAYS) + ENDED.index(way)])
    assert (whole.resumes, resumed.resumes) == (0, 1)
    assert resumed.losses == whole.losses and resumed.held_out == whole.held_out
    assert [row.sha256 for row in resumed.files] == [row.sha256 for row in whole.files]


@pytest.mark.parametrize("way", NARROW)
def test_sharded_processes_compute_in_16_bits_too(
    document: dict[str, Any], pairs: list[Path], tmp_path: Path, way: tuple[Method, Sharding]
) -> None:
    pair = only(pairs[len(WAYS) + len(ENDED) + NARROW.index(way)])
    one = job(trained_by(narrow(document), way[0]), data_parallel=1)
    tune(one, tmp_path, lambda *_: None, lambda _: None)
    assert pair.losses == pytest.approx(only(tmp_path).losses, rel=1e-3)


def test_processes_share_the_decompositions_of_lamda_plus_plus(
    document: dict[str, Any], pairs: list[Path], tmp_path: Path
) -> None:
    pair = only(pairs[-1])
    tune(job(spectral(document), data_parallel=1), tmp_path, lambda *_: None, lambda _: None)
    one = only(tmp_path)
    assert pair.ranks == one.ranks and set(one.ranks.values()) == {8, 16}
    assert pair.losses == pytest.approx(one.losses, rel=1e-5)


def test_each_process_of_a_sharded_model_keeps_half_of_it(pairs: list[Path]) -> None:
    def kept(method: Method, sharding: Sharding) -> list[int]:
        root = pairs[WAYS.index((method, sharding))]
        return [int((root / f"kept-{rank}").read_text()) for rank in (0, 1)]

    whole = kept(Method.FULL, Sharding.NONE)[0]
    assert kept(Method.FULL, Sharding.ZERO3) == [whole / 2, whole / 2]
    adapter = only(pairs[WAYS.index((Method.LAMDA, Sharding.ZERO3))]).trained.peak
    assert kept(Method.LAMDA, Sharding.ZERO3) == [whole / 2 + adapter, whole / 2 + adapter]


def test_a_sharded_model_is_saved_as_a_whole_one(pairs: list[Path]) -> None:
    from safetensors.numpy import load_file

    roots = [pairs[WAYS.index((Method.FULL, sharding))] for sharding in Sharding]
    folders = [root / only(root).weights for root in roots]
    configs = [(folder / "config.json").read_text() for folder in folders]
    assert configs[0] == configs[1] and "FSDP" not in configs[1]
    whole, sharded = (load_file(folder / "model.safetensors") for folder in folders)
    assert whole.keys() == sharded.keys()
    assert all(np.allclose(whole[name], sharded[name], atol=1e-5) for name in whole)


@pytest.fixture
def spec(document: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(document))
    return path


def started(spec: Path, *words: str, **changes: str) -> "subprocess.Popen[str]":
    """`hgpu tune`, which starts two processes itself."""
    return subprocess.Popen(
        [sys.executable, "-m", "hgpu", "tune", str(spec), *words],
        cwd=spec.parent,
        env=environment(**changes),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_launcher_that_is_killed_takes_its_processes_with_it_and_the_run_goes_on(
    spec: Path, document: dict[str, Any], pairs: list[Path]
) -> None:
    """With B half frozen; losses and bytes are those of the undisturbed run."""
    checkpoint = spec.parent / "results" / "journal" / f"tuning-{job(document).key()[:12]}"
    with started(spec) as process:
        while not (checkpoint / "checkpoint.safetensors").exists():
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.005)  # another program's file
        process.send_signal(signal.SIGKILL)
        process.communicate()  # returns when the last that holds its stderr has ended
    with started(spec, "--json") as again:
        said, progress = again.communicate(timeout=60)
    assert again.returncode == 0, progress
    resumed, whole = only(spec.parent / "results"), only(pairs[WAYS.index((Method.LAMDA, Sharding.NONE))])
    assert json.loads(said)["resumes"] == resumed.resumes == 1
    assert resumed.losses == whole.losses and resumed.held_out == whole.held_out
    assert [row.sha256 for row in resumed.files] == [row.sha256 for row in whole.files]
    assert len(list((spec.parent / "results" / "tuned").iterdir())) == 1


def test_two_machines_train_as_one_and_the_first_keeps_the_results(spec: Path, pairs: list[Path]) -> None:
    """Two launchers here stand for them, the second of which starts first."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"HGPU_NODES": "2", "HGPU_LEADER_ADDRESS": f"127.0.0.1:{free.getsockname()[1]}"}
    second = started(spec, "--results", "second", HGPU_NODE_RANK="1", **place)
    with second, started(spec, "--json", HGPU_NODE_RANK="0", **place) as first:
        said, progress = first.communicate(timeout=60)
        said_there, progress_there = second.communicate(timeout=60)
    assert (first.returncode, second.returncode) == (0, 0), progress + progress_there
    whole = only(pairs[WAYS.index((Method.LAMDA, Sharding.NONE))])
    assert json.loads(said)["losses"] == only(spec.parent / "results").losses == whole.losses
    assert not said_there and not (spec.parent / "second").exists()


FAULT = """
import os
if os.environ.get("RANK") == "1":
    import torch
    def step(*_, **__):
        raise torch.OutOfMemoryError("Tried to allocate 2 GiB. More words")
    torch.optim.AdamW.step = step
"""


def test_an_error_of_one_process_ends_all_and_is_told_once(spec: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(FAULT)
    paths = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    with started(spec, "--json", PYTHONPATH=paths) as process:
        said, progress = process.communicate(timeout=60)
    assert process.returncode == 1
    assert json.loads(said)["error"] == "the device's memory is full"
    assert progress.splitlines().count("error: the device's memory is full") == 1
    assert "Traceback" not in progress and "why: Tried to allocate 2 GiB\n" in progress


def test_the_error_that_began_it_is_told(tmp_path: Path) -> None:
    """One that a process told, then a sudden end, then a lost connection; last whom the launcher ended."""
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

    def failure(rank: int, status: int, **told: Any) -> ProcessFailure:
        path = tmp_path / f"{rank}.json"
        if told:
            path.write_text(
                json.dumps({"message": "", "timestamp": 0, "traceback": "", "exit_code": 2, **told})
            )
        return ProcessFailure(rank, 4321, status, str(path))

    failures = {
        0: failure(0, -signal.SIGTERM),
        1: failure(1, 1, error=["lost", "", ""], lost=True, at=1.0),
        2: failure(2, -signal.SIGKILL),
        3: failure(3, 2, error=["later", "", ""], lost=False, at=3.0),
        4: failure(4, 2, error=["first", "", ""], lost=False, at=2.0),
    }
    said = []
    while failures:
        said.append(first_error(failures, 5))
        del failures[[4, 3, 2, 1, 0][len(said) - 1]]
    what = [error.what for error in said]
    assert what[:2] == ["first", "later"] and what[3] == "lost"
    assert what[2] == "process 2 of 5 was ended by SIGKILL" and "memory is full" in said[2].why
    assert what[4] == "process 0 of 5 was ended by SIGTERM"
    assert [error.exit_code for error in said] == [2, 2, 1, 2, 1]


def test_a_leader_whose_port_is_taken_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as other:
        leader = f"127.0.0.1:{other.getsockname()[1]}"
        place = {"HGPU_NODES": "2", "HGPU_NODE_RANK": "0", "HGPU_LEADER_ADDRESS": leader}
        for name, value in place.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(EngineError, match=f"can't meet the other machines at {leader}") as raised:
            launch(["tune", "spec.yaml"], 2)
    assert "in use" in raised.value.why


def test_a_machine_with_fewer_gpus_than_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("HGPU_NODES", raising=False)
    with pytest.raises(InputError, match="8 processes need 8 GPUs here") as raised:
        launch(["tune", "spec.yaml"], 8)
    assert "torch sees 4" in raised.value.why and "--set data_parallel=4" in raised.value.fix


def test_gradients_are_averaged_in_messages_of_a_bounded_size() -> None:
    import torch

    tensors = [
        torch.zeros(size, dtype=kind) for kind in (torch.float32, torch.bfloat16) for size in (2, 3, 9)
    ]
    sizes = [[tensor.nbytes for tensor in bucket] for bucket in buckets(tensors, 20)]
    assert sizes == [[4, 6], [18], [8, 12], [36]]
    assert {id(it) for it in chain(*buckets(tensors, 20))} == {id(it) for it in tensors}
    assert not list(buckets([]))
