"""Deployments in which each engine's place is shared by a pair of engines."""

import json
import os
import threading
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
import yaml
from deploy_standin import driver, row, saved_plan
from test_supervise import WithRealRouter
from tests_types import Run

from hgpu.core.errors import HgpuError, InputError
from hgpu.deploy.driver import DeployOptions
from hgpu.deploy.local import LocalDriver
from hgpu.deploy.modes import paired
from hgpu.deploy.record import deployment_payload
from hgpu.deploy.render.local import local_documents
from hgpu.deploy.slots import engine_slots
from hgpu.deploy.starts import shared_folder
from hgpu.deploy.state import Phase
from hgpu.runtime.completion import complete
from hgpu.runtime.machine import Machine
from hgpu.runtime.vllm.folder_options import LIMIT_BYTES

LONG = "hello " * 100


def plan_of(bench, engines=1):
    return saved_plan(bench.root, row(gpu="cpu-2core", engines=engines))


def transfer(command):
    return json.loads(command[command.index("--kv-transfer-config") + 1])


def metrics(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    rows = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in rows}


def test_the_two_sides_share_a_folder_that_goes_with_them(bench):
    plan = plan_of(bench)
    deployed = bench.apply(plan=plan, two_engines=True)
    state = deployed.state
    sides = {side: transfer(state.slot(f"engine-0-{side}").command) for side in ("prefill", "decode")}
    assert [sides[side]["kv_role"] for side in ("prefill", "decode")] == ["kv_producer", "kv_consumer"]
    (folder,) = {side["kv_connector_extra_config"]["folder"] for side in sides.values()}
    shared = shared_folder(bench.root / "state" / state.name)
    assert folder == str(shared / "pool-chat")
    shared.mkdir()
    (shared / "block").write_text("of a prompt")
    assert deployed.completion.tokens == 8
    bench.driver.destroy(bench.root, state.name)
    assert not shared.exists()


def test_the_record_names_no_place_of_this_machine(bench):
    plan = plan_of(bench)
    deployed = bench.apply(plan=plan, two_engines=True)
    record = deployment_payload(plan.payload, deployed, "auto", bench.driver.commands)
    assert [slot.point.mode for slot in record.slots] == ["pd", "pd"]
    folders = {transfer(slot.command)["kv_connector_extra_config"]["folder"] for slot in record.slots}
    assert folders == {f"results/state/{deployed.state.name}/kv/pool-chat"}


def test_a_pool_of_any_name_keeps_to_its_own_folder(tmp_path):
    names = ("../../x", "a/b", "a%2Fb", "..")
    plan = saved_plan(tmp_path, *(row(name, gpu="cpu-2core", engines=1) for name in names))
    local = driver(tmp_path, cores=tuple(range(8)))
    starts = local.starts(plan, tmp_path, "auto")
    slots = engine_slots(paired(plan.payload), local.free_machine(tmp_path, "any"))
    commands = [document.body["command"] for document in local_documents(slots, starts)]
    given = [transfer(command) for command in commands if "--kv-transfer-config" in command]
    folders = {Path(one["kv_connector_extra_config"]["folder"]) for one in given}
    assert len(folders) == len(names)
    assert {folder.parent for folder in folders} == {shared_folder(starts.folder)}
    assert all(".." not in folder.parts for folder in folders)


def test_all_that_prefill_engines_write_is_bounded(tmp_path):
    plan = saved_plan(tmp_path, row(gpu="cpu-2core", engines=2))
    local = driver(tmp_path, cores=(0, 1, 2, 3))
    slots = engine_slots(paired(plan.payload), local.free_machine(tmp_path, "any"))
    documents = local_documents(slots, local.starts(plan, tmp_path, "auto"))
    made = {document.path: document.body["command"] for document in documents}
    limits = [
        transfer(made[f"engine-{n}-prefill.yaml"])["kv_connector_extra_config"]["limit_bytes"] for n in (0, 1)
    ]
    assert sum(limits) == LIMIT_BYTES


@pytest.mark.parametrize("first", [True, False])
def test_another_mode_is_no_change_that_deploy_makes_under_way(bench, first):
    plan = plan_of(bench)
    bench.apply(plan=plan, two_engines=first)
    again = bench.apply(plan=plan, two_engines=first)
    assert not again.changed
    with pytest.raises(InputError, match="in each place"):
        bench.apply(plan=plan, two_engines=not first)
    assert bench.driver.status(bench.root)[0].phase is Phase.READY


def test_the_option_is_of_this_machine_only_and_a_dry_run_shows_it(hgpu: Run, tmp_path):
    plan = saved_plan(tmp_path / "results", row(gpu="cpu-2core", engines=1))
    refused = hgpu("deploy", plan.digest, "--two-engines", "--target", "kubernetes")
    assert refused.returncode == 2 and "--two-engines: of local" in refused.stderr
    for module in ("vllm", "vllm_router"):  # found, not run
        (tmp_path / "modules" / module).mkdir(parents=True)
        (tmp_path / "modules" / module / "__init__.py").write_text("")
    path = os.pathsep.join([str(tmp_path / "modules"), os.environ.get("PYTHONPATH", "")])
    words = ("deploy", plan.digest, "--two-engines", "--dry-run", "--out", "out", "--json")
    done = hgpu(*words, env={"PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    paths = [tmp_path / file["path"] for file in json.loads(done.stdout)["files"]]
    bodies = [yaml.safe_load(path.read_text()) for path in paths]
    sides = [transfer(body["command"])["kv_role"] for body in bodies if body["role"] == "engine"]
    assert sorted(sides) == ["kv_consumer", "kv_producer"]
    (router,) = (body["command"] for body in bodies if body["role"] == "router")
    assert router[router.index("--prefill") + 1].startswith("chat=http://127.0.0.1:")


def killed_and_back(local, root, name, slot):
    (status,) = local.status(root, name)
    victim = next(row.pid for row in status.slots if row.slot == slot)
    psutil.Process(victim).kill()
    deadline = time.monotonic() + 40
    while True:
        (status,) = local.status(root, name)
        if status.phase is Phase.READY and victim not in [row.pid for row in status.slots]:
            return
        assert time.monotonic() < deadline, status


def known_healthy(port):
    """Wait until the router's own probes have found both sides again."""
    deadline = time.monotonic() + 20
    while True:
        counts = metrics(port)
        if all(counts[f'hgpu_router_healthy{{pool="{name}"}}'] for name in ("chat", "chat/prefill")):
            return counts
        assert time.monotonic() < deadline, counts


def test_either_side_killed_under_load_costs_no_request_and_comes_back(bench):
    local = LocalDriver(WithRealRouter(bench.root / "server.py", ("slow",)), lambda: Machine((0, 1), ()))
    options = DeployOptions(timeout_s=30, two_engines=True)
    deployed = local.apply(plan_of(bench), bench.root, options, print)
    name, url = deployed.state.name, deployed.state.front_url
    port = deployed.state.slot("router").metrics_port
    failures, served, enough = [], [], threading.Event()

    def ask():
        while not enough.is_set():
            try:
                served.append(complete(url, "stand-in", LONG, 4).tokens)
            except HgpuError as error:
                failures.append(str(error))

    outcome = 'hgpu_router_handoffs_total{outcome="%s",pool="chat"}'
    clients = [threading.Thread(target=ask) for _ in range(3)]
    try:
        complete(url, "stand-in", LONG, 4)
        before = metrics(port)
        for client in clients:
            client.start()
        for side in ("prefill", "decode"):
            killed_and_back(local, bench.root, name, f"engine-0-{side}")
        counts = known_healthy(port)
        complete(url, "stand-in", LONG, 4)
        after = metrics(port)
    finally:
        enough.set()
        for client in clients:
            client.join(30)
        local.destroy(bench.root, name)
    assert failures == []
    assert len(served) > 20 and set(served) == {4}
    assert before[outcome % "done"] >= 1
    assert counts[outcome % "unhealthy"] + counts[outcome % "failed"] > 0
    assert counts['hgpu_router_answers_total{pool="chat/prefill",status="200"}'] > 0
    assert after[outcome % "done"] > counts[outcome % "done"]
