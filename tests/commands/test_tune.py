"""`hgpu tune` where nothing that trains is installed, and its summary on the screen."""

import importlib.util
import json
from pathlib import Path

import pytest
from tests_types import Run

from hgpu.artifacts.store import load
from hgpu.report.tuning import print_tuning, tuning_json

GOLDEN = Path(__file__).parents[1] / "artifacts" / "golden"
SPEC = (
    "kind: finetune\nmodel: {model}\ndata: data.txt\nmethod: [lora, lamda]\ncontext: 8\nbatch: 2\nsteps: 4\n"
)


@pytest.fixture
def spec(tmp_path: Path) -> str:
    (tmp_path / "data.txt").write_text("words")
    (tmp_path / "spec.yaml").write_text(SPEC.format(model="."))
    return str(tmp_path / "spec.yaml")


@pytest.mark.skipif(importlib.util.find_spec("peft") is not None, reason="what trains is installed")
def test_it_says_what_to_install(hgpu: Run, spec: str) -> None:
    done = hgpu("tune", spec, "--set", "method=lora", "--json")
    assert done.returncode == 1 and "pip install 'hgpu[tune]'" in done.stderr
    assert json.loads(done.stdout)["error"].startswith("not installed: torch")


def test_a_choice_left_open_is_asked_back(hgpu: Run, spec: str) -> None:
    done = hgpu("tune", spec)
    assert done.returncode == 2 and "--set method=lora" in done.stderr


def test_specs_of_other_kinds_are_refused(hgpu: Run) -> None:
    assert hgpu("init", "serve", "--out", "serve.yaml").returncode == 0
    done = hgpu("tune", "serve.yaml")
    assert done.returncode == 2 and "hgpu init finetune" in done.stderr


def test_the_screen_says_what_was_trained_and_what_it_took(capsys: pytest.CaptureFixture[str]) -> None:
    artifact = load(GOLDEN / "tuning.v1")
    print_tuning(artifact)
    said = capsys.readouterr().out
    assert "lamda of rank 8 on 10 layers; 12 steps of 4 × 64 tokens; measured" in said
    assert "12,582 at most, 2,915 on average, 640 at the end, of 917,888" in said
    assert "loss on 9 sequences held out" in said and "tokens/s" in said
    assert tuning_json(artifact)["weights_path"].endswith(artifact.payload.weights)


def test_the_screen_says_how_many_processes_trained(capsys: pytest.CaptureFixture[str]) -> None:
    print_tuning(load(GOLDEN / "tuning.v2"))
    said = capsys.readouterr().out
    assert "6 steps of 8 × 48 tokens by 2 processes, sharding zero3; measured" in said
    assert "at most in any process" in said
