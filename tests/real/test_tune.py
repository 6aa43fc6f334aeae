"""`hgpu tune` on a real small model: what it writes, that it goes on after a kill, and what it refuses."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from linears import linears
from real.tune_jobs import small_job
from real.weights import write_weights
from tests_types import Run

from hgpu.artifacts.resolve import entries
from hgpu.artifacts.store import load
from hgpu.core.errors import HgpuError, InputError, UnknownName
from hgpu.latency.training_counts import lamda_count, lora_count
from hgpu.runtime.tiny_model import make_tiny_model
from hgpu.specs.finetune import Method
from hgpu.tuning.job import TuneJob

pytestmark = pytest.mark.vllm
STEPS, RANK, ETA = 24, 4, 0.5
SHAPES = [(64, 64), (64, 64), (170, 64)] * 2  # q, v and up of two layers


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tune")
    write_weights(make_tiny_model(folder / "model", hidden_size=64, layers=2))
    source = Path(json.__file__).read_text(encoding="utf-8")
    (folder / "data.jsonl").write_text("".join(json.dumps({"text": source}) + "\n" for _ in range(4)))
    return folder


@pytest.fixture
def job(folder: Path) -> TuneJob:
    return small_job(
        folder,
        method=Method.LAMDA,
        rank=RANK,
        targets=("q_proj", "v_proj", "up_proj"),
        freeze_share=ETA,
        context=48,
        micro_batch=2,
        steps=STEPS,
        weight_decay=0.1,
        warmup_steps=2,
        save_every_steps=5,
    )


def run(job: TuneJob, root: Path, each: Callable[[int, int, str], None] = lambda *_: None) -> Any:
    from hgpu.tuning.run import tune

    return tune(job, root, each, lambda _: None).payload


def test_the_command_trains_and_leaves_an_adapter_that_peft_loads(
    hgpu: Run, folder: Path, tmp_path: Path
) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        f"kind: finetune\nmodel: {folder / 'model'}\ndata: {folder / 'data.jsonl'}\nmethod: [lora, lamda]\n"
        f"rank: {RANK}\ntargets: [q_proj, v_proj, up_proj]\nfreeze_share: {ETA}\ncontext: 48\nbatch: 4\n"
        f"steps: {STEPS}\nlearning_rate: 0.02\n"
    )
    done = hgpu("tune", str(spec), "--set", "method=lamda", "--json")
    assert done.returncode == 0, done.stderr
    payload = json.loads(done.stdout)
    expected = lamda_count(linears(SHAPES), RANK, ETA)
    trained = payload["trained"]
    assert (trained["peak"], trained["mean"], trained["final"]) == (
        expected.peak,
        expected.mean,
        expected.final,
    )
    assert payload["held_out"]["after"] < payload["held_out"]["before"]
    assert payload["memory"]["peak_bytes"] > payload["memory"]["before_bytes"] > 0
    assert payload["provenance"] == "measured" and len(payload["losses"]) == STEPS
    assert not list((tmp_path / "results" / "journal").iterdir()), "the checkpoint is left behind"
    assert f"tune: {STEPS}/{STEPS}" in done.stderr

    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    import hgpu.tuning.lamda_peft  # makes the method known to PEFT

    base = AutoModelForCausalLM.from_pretrained(folder / "model")
    tuned = PeftModel.from_pretrained(base, tmp_path / payload["weights_path"])
    assert tuned.peft_config["default"].peft_type == "LAMDA"


def killed_at(job: TuneJob, root: Path, step: int) -> None:
    """Run the job in a process of its own, and kill it when it has done a step."""
    code = (
        "import json, sys; from pathlib import Path\n"
        "from hgpu.specs.finetune import Method; from hgpu.tuning.job import TuneJob\n"
        "from hgpu.tuning.run import tune\n"
        "fields = json.loads(sys.argv[1]); fields['method'] = Method(fields['method'])\n"
        "job = TuneJob(**{**fields, 'targets': tuple(fields['targets'])})\n"
        "tune(job, Path(sys.argv[2]), lambda done, *_: print(done, flush=True), lambda _: None)\n"
    )
    words = [sys.executable, "-c", code, json.dumps(asdict(job)), str(root)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == step:
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL


def test_a_killed_run_goes_on_to_the_same_losses_and_weights(job: TuneJob, tmp_path: Path) -> None:
    whole = run(job, tmp_path / "whole")
    killed_at(job, tmp_path / "killed", 12)  # two steps after a checkpoint, with B half frozen
    journal = next((tmp_path / "killed" / "journal").iterdir())
    (journal / "checkpoint.part").write_bytes(b"torn")  # as a kill while one is written leaves it
    seen: list[int] = []
    resumed = run(job, tmp_path / "killed", lambda done, *_: seen.append(done))
    assert seen[0] == 11 and resumed.resumes == 1
    assert resumed.losses == whole.losses and resumed.held_out == whole.held_out
    assert resumed.trained == whole.trained
    assert [row.sha256 for row in resumed.files] == [row.sha256 for row in whole.files]


@pytest.mark.parametrize("method", [Method.FULL, Method.LORA])
def test_other_methods_go_on_too(job: TuneJob, tmp_path: Path, method: Method) -> None:
    """The small model's embedding is tied to its head, so that a full fine-tune's state names it once."""

    def stop(done: int, *_: Any) -> None:
        if done == 7:
            raise KeyboardInterrupt

    job = replace(job, method=method, learning_rate=2e-3, steps=12)
    whole = run(job, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(job, tmp_path / "ended", stop)
    resumed = run(job, tmp_path / "ended")
    assert resumed.losses == whole.losses
    assert [row.sha256 for row in resumed.files] == [row.sha256 for row in whole.files]


def test_a_run_that_ended_before_its_artifact_was_written_trains_no_step_again(
    job: TuneJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise HgpuError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("hgpu.tuning.run.save_weights", full)
        with pytest.raises(HgpuError, match="disk is full"):
            run(job, tmp_path)
    seen: list[int] = []
    run(job, tmp_path, lambda done, *_: seen.append(done))
    assert not seen and len(entries(tmp_path, "tuning")) == 1


@pytest.mark.parametrize(("method", "checkpointing"), [(Method.LORA, True), (Method.FULL, False)])
def test_other_methods_train_too(job: TuneJob, tmp_path: Path, method: Method, checkpointing: bool) -> None:
    payload = run(replace(job, method=method, checkpointing=checkpointing, learning_rate=2e-3), tmp_path)
    assert payload.held_out.after < payload.held_out.before
    expected = lora_count(linears(SHAPES), RANK).peak if method is Method.LORA else payload.trained.of_model
    assert payload.trained.peak == payload.trained.final == expected
    assert load(entries(tmp_path, "tuning")[0].path).payload == payload


def test_passes_of_any_size_train_alike(job: TuneJob, tmp_path: Path) -> None:
    losses = [run(replace(job, micro_batch=size), tmp_path).losses for size in (1, 4)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_lamda_plus_plus_spreads_its_ranks(job: TuneJob, tmp_path: Path) -> None:
    payload = run(replace(job, rank=12, rank_allocation="energy", steps=4), tmp_path)
    ranks = list(payload.ranks.values())
    assert set(ranks) == {8, 16} and sum(ranks) <= 12 * len(ranks)


def test_what_does_not_fit_the_model_is_refused(job: TuneJob, tmp_path: Path, folder: Path) -> None:
    from safetensors.numpy import load_file, save_file

    with pytest.raises(UnknownName, match="unknown target module 'query'") as raised:
        run(replace(job, targets=("query",)), tmp_path)
    assert "q_proj" in raised.value.why
    with pytest.raises(InputError, match="rank 65 doesn't fit"):
        run(replace(job, rank=65), tmp_path)
    with pytest.raises(InputError, match="context of 5000 tokens is too long"):
        run(replace(job, context=5000), tmp_path)
    with pytest.raises(InputError, match="can't load the config of"):
        run(replace(job, model=str(folder / "nowhere")), tmp_path)
    broken = shutil.copytree(folder / "model", tmp_path / "broken")
    weights = broken / "model.safetensors"
    save_file({name: it for name, it in load_file(weights).items() if "norm" not in name}, weights)
    with pytest.raises(InputError, match="lacks weights") as raised:
        run(replace(job, model=str(broken)), tmp_path)
    assert "layernorm" in raised.value.why
    weights.write_bytes(b"torn")
    with pytest.raises(InputError, match="can't load the model of"):
        run(replace(job, model=str(broken)), tmp_path)
    with pytest.raises(HgpuError, match="the loss of step"):
        run(replace(job, method=Method.FULL, learning_rate=1e30), tmp_path)


def test_a_damaged_checkpoint_is_told(job: TuneJob, tmp_path: Path) -> None:
    path = tmp_path / "journal" / f"tuning-{job.key()[:12]}" / "checkpoint.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"nonsense")
    with pytest.raises(InputError, match="is damaged"):
        run(job, tmp_path)
