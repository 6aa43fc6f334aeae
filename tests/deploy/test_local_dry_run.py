"""A dry run on this machine says what a launch would start, and starts nothing."""

import json
import os
from pathlib import Path

import yaml
from deploy_standin import driver, row, saved_plan
from tests_types import Run

from hgpu.deploy.render.local import local_documents
from hgpu.deploy.slots import engine_slots
from hgpu.runtime.tags import tagged_deployments


def test_one_file_a_process_with_its_command_and_place(tmp_path: Path) -> None:
    plan = saved_plan(tmp_path, row(engines=2))
    local = driver(tmp_path, cores=(3, 5))
    slots = engine_slots(plan.payload, local.free_machine(tmp_path, "any"))
    documents = local_documents(slots, local.starts(plan, tmp_path, "auto"))
    made = {document.path: document.body for document in documents}
    names = ["engine-0", "engine-1", "pool-chat", "router", "supervisor"]
    assert list(made) == [f"{name}.yaml" for name in names]
    assert made["engine-1.yaml"]["cores"] == [5] and made["engine-1.yaml"]["pool"] == "chat"
    assert made["engine-0.yaml"]["environment"] == {"STAND_IN_CORES": "(3,)"}


def test_nothing_is_started_and_no_secret_is_written(hgpu: Run, tmp_path: Path) -> None:
    plan = saved_plan(tmp_path / "results", row(engines=1))
    for module in ("vllm", "vllm_router"):  # found, not run
        (tmp_path / "modules" / module).mkdir(parents=True)
        (tmp_path / "modules" / module / "__init__.py").write_text("")
    path = os.pathsep.join([str(tmp_path / "modules"), os.environ.get("PYTHONPATH", "")])
    env = {"PYTHONPATH": path, "HGPU_API_KEY": "canary-2718", "HF_TOKEN": "canary-1414"}
    words = ("deploy", plan.digest, "--dry-run", "--load-format", "dummy", "--out", "out", "--json")
    done = hgpu(*words, env=env)
    assert done.returncode == 0, done.stderr
    file, supervisor = json.loads(done.stdout)["files"]
    assert "supervise" in yaml.safe_load((tmp_path / supervisor["path"]).read_text())["command"]
    text = (tmp_path / file["path"]).read_text()
    command = yaml.safe_load(text)["command"]
    assert command[command.index("--load-format") + 1] == "dummy"
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert "canary" not in text + done.stdout + done.stderr
    assert tagged_deployments(tmp_path / "results" / "state") == set()
    assert not (tmp_path / "results" / "state").exists()
