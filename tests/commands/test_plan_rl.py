"""`hgpu plan` and `hgpu deploy` of a reinforcement-learning loop, as a user runs them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests_types import Run

from hgpu.commands.planning_rl import is_loop, place_spec
from hgpu.core.errors import InputError
from hgpu.deploy.render.rlinf_rules import check_rlinf
from hgpu.specs.templates import template

TASK = """\
defaults:
  - override hydra/job_logging: stdout
cluster:
  num_nodes: 2
  component_placement:
    actor,env,rollout: all
runner: {task_type: embodied, max_epochs: 1000}
env:
  enable_offload: False
  train: {total_num_envs: 2, max_episode_steps: 480, group_size: "${algorithm.group_size}"}
rollout: {pipeline_stage_num: 1, model: {model_path: /models/pi0}}
actor: {micro_batch_size: 1}
"""


def test_a_loop_is_planned_shown_and_rendered_for_rlinf(hgpu: Run, tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").write_text(template("rl"))
    done = hgpu("plan", "loop.yaml")
    assert done.returncode == 0, done.stderr
    for words in ("collocated, all share", "the best of each mode", "what binds"):
        assert words in done.stdout
    document = json.loads(hgpu("plan", "loop.yaml", "--json").stdout)
    assert f"placement {document['digest'][:12]}" in done.stdout  # the same again: the same digest
    assert document["mode"] == "collocated" and document["timings"]["solve_s"] > 0
    assert "env 0-3, rollout 0-3, actor 0-3" in hgpu("show", document["digest"][:12]).stdout

    rendered = hgpu("deploy", "latest", "--target", "rlinf", "--dry-run", "--out", "rlinf")
    assert rendered.returncode == 0, rendered.stderr
    (tmp_path / "task.yaml").write_text(TASK)
    words = rendered.stdout.split("apply them: python ")[1].split()
    words = [word.replace("TASK", "task") for word in words]
    subprocess.run([sys.executable, *words], cwd=tmp_path, check=True)
    placed = yaml.safe_load((tmp_path / "task-placed.yaml").read_text())
    assert placed["cluster"]["component_placement"] == {"actor": "0-3", "rollout": "0-3", "env": "0-3"}
    assert placed["env"]["train"]["max_episode_steps"] == 480 and placed["defaults"]
    assert placed["rollout"]["model"] == {"model_path": "/models/pi0"}
    check_rlinf(placed, [4])


def test_options_that_a_loop_has_no_use_for_are_refused(hgpu: Run, tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").write_text(template("rl"))
    place_spec(tmp_path / "loop.yaml", tmp_path / "results")
    for words, said in (
        (("plan", "loop.yaml", "--refine"), "--refine: not of placements of loops"),
        (("deploy", "latest", "--target", "rlinf"), "hgpu doesn't launch loops itself"),
        (("deploy", "latest", "--target", "rlinf", "--dry-run", "--autoscale"), "--autoscale: of plans of"),
    ):
        done = hgpu(*words)
        assert done.returncode == 2 and said in done.stderr


def test_loops_and_services_arent_planned_together(tmp_path: Path) -> None:
    paths = [tmp_path / f"{kind}.yaml" for kind in ("rl", "serve")]
    for path in paths:
        path.write_text(template(path.stem))
    assert is_loop(paths[:1]) and not is_loop(paths[1:])
    with pytest.raises(InputError, match="a loop is placed alone"):
        is_loop(paths)


def test_a_loop_that_cant_keep_its_deadline_ends_with_3(hgpu: Run, tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").write_text(template("rl").replace("# deadline_h: 36 ", "deadline_h: 3 "))
    done = hgpu("plan", "loop.yaml")
    assert done.returncode == 3 and "the deadline of 3 h can't be kept" in done.stderr
