import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from deploy_standin import payload, row, saved_plan

from hgpu.core.errors import EngineError
from hgpu.core.operating_point import Mode
from hgpu.core.phases import PhaseOptions, Phases
from hgpu.core.step import StepModel
from hgpu.deploy import launch
from hgpu.deploy.driver import Deployed
from hgpu.deploy.launch import PlanRef, VllmCommands, deployment_name
from hgpu.deploy.local import LocalDriver
from hgpu.deploy.record import deployment_payload
from hgpu.deploy.state import Phase, Role, SlotState, State
from hgpu.runtime.completion import Completion
from hgpu.runtime.machine import Place
from hgpu.runtime.vllm.folder_options import Side
from hgpu.runtime.vllm.options import ASYNC_SCHEDULER, SCHEDULER, phases_of

PHASES = Phases(PhaseOptions(15.0, 0.05), StepModel(2e-3, 15e-3, 4e-9, 1e-7, 2e-5, 200.0, 4.0))


@pytest.fixture(autouse=True)
def _installed(monkeypatch):
    monkeypatch.setattr(launch.importlib.util, "find_spec", lambda name: SimpleNamespace(name=name))


def after(command, flag):
    return command[command.index(flag) + 1]


def test_engine_listens_on_this_machine_only_under_its_models_name(tmp_path):
    folder = tmp_path / "tiny"
    folder.mkdir()
    plan = payload(row(), model_source=str(folder))
    made = VllmCommands("py").engine(plan, row(), Place(cores=(3,)), 8123, "dummy")
    assert made.command[:3] == ["py", "-m", "vllm.entrypoints.openai.api_server"]
    flags = ("--host", "--port", "--served-model-name", "--model", "--load-format")
    assert [after(made.command, flag) for flag in flags] == [
        "127.0.0.1",
        "8123",
        "tiny",
        str(folder),
        "dummy",
    ]
    assert after(
        VllmCommands().engine(payload(row()), row(), Place(cores=(3,)), 1, "auto").command, flags[2]
    ) == ("some/model")


def test_gpu_indices_follow_nvmls_order():
    made = VllmCommands("py").engine(payload(), row(gpu="L4", tp=2), Place(gpus=(1, 3)), 1, "auto")
    assert made.environment["CUDA_VISIBLE_DEVICES"] == "1,3"
    assert made.environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def phased(**fields):
    planned = row(**fields)
    point = replace(planned.point, mode=Mode.PD)
    return planned.model_copy(update={"mode": "pd", "point": point, "phases": PHASES})


@pytest.mark.parametrize(("gpu", "scheduler"), [("cpu-1core", SCHEDULER), ("L4", ASYNC_SCHEDULER)])
def test_an_engine_with_phases_has_the_scheduler_that_was_planned(gpu, scheduler):
    place = Place(cores=(3,), gpus=(0,))
    command = VllmCommands("py").engine(payload(), phased(gpu=gpu), place, 1, "auto").command
    assert after(command, "--scheduler-cls") == scheduler
    assert phases_of(json.loads(after(command, "--additional-config"))) == PHASES
    assert "--scheduler-cls" not in VllmCommands("py").engine(payload(), row(), place, 1, "auto").command


@pytest.mark.parametrize("side", [None, Side.DECODE])
def test_what_runs_is_what_is_recorded_and_a_pairs_engines_have_no_phases(tmp_path, side):
    plan = saved_plan(tmp_path, phased())
    slot = SlotState(slot="engine-0", role=Role.ENGINE, pool="chat", side=side, port=1, cores=[0])
    other = slot.model_copy(update={"slot": "engine-1", "side": side and Side.PREFILL})
    state = State(name="chat-0", plan_digest="0", target="local", phase=Phase.READY, slots=[slot, other])
    starts = LocalDriver(VllmCommands("python")).starts(plan, tmp_path, "auto")
    command = starts.launch(slot, state).command
    deployed = Deployed(state, Completion("x", 8, 0.1, 1.0), changed=True)
    record = deployment_payload(plan.payload, deployed, "auto").slots[0]
    for words in (command, record.command):
        assert ("--scheduler-cls" in words) == (side is None)
        assert ("--kv-transfer-config" in words) == (side is not None)
    assert record.point.mode is Mode.PD


def test_routers_have_metrics_ports_of_their_own_and_know_what_is_behind_them():
    pools = {"b": "http://b", "a": "http://a"}
    command = VllmCommands("py").router(PlanRef("12ab", Path("r")), 1, 2, pools, {"b": "http://p"}).command
    assert command[:5] == ["py", "-m", "hgpu", "router", "12ab"]
    assert [after(command, flag) for flag in ("--port", "--metrics-port", "--results")] == ["1", "2", "r"]
    assert command[-6:] == ["--pool", "a=http://a", "--pool", "b=http://b", "--prefill", "b=http://p"]
    command = VllmCommands("py").balancer(1, 2, ["http://a", "http://b"]).command
    assert [after(command, flag) for flag in ("--port", "--prometheus-port")] == ["1", "2"]
    assert command[command.index("--worker-urls") + 1 :] == ["http://a", "http://b"]


def test_missing_vllm_says_what_to_install(monkeypatch):
    monkeypatch.setattr(launch.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EngineError, match="pip install"):
        VllmCommands().engine(payload(), row(), Place(cores=(0,)), 1, "auto")
    with pytest.raises(EngineError, match="hgpu\\[router\\]"):
        VllmCommands().balancer(1, 2, [])
    with pytest.raises(EngineError, match="hgpu\\[router\\]"):
        VllmCommands().router(PlanRef("12ab", Path("r")), 1, 2, {}, {})


def test_name_is_the_service_and_the_plans_digest():
    assert deployment_name(payload(service="Chat / EU"), "0123456789abcdef") == "chat-eu-01234567"
    assert deployment_name(payload(service="§"), "0123456789abcdef") == "service-01234567"


def test_record_is_the_same_whatever_ports_and_pids_were():
    def record(port, pid):
        slots = [
            SlotState(
                slot=f"engine-{n}", role=Role.ENGINE, pool="chat", port=port + n, cores=[n], pid=pid + n
            )
            for n in (0, 1)
        ]
        slots.append(SlotState(slot="router", role=Role.ROUTER, port=port + 9, metrics_port=port + 10))
        state = State(name="chat-0", plan_digest="0", target="local", phase=Phase.READY, slots=slots)
        deployed = Deployed(state, Completion("x", 8, 0.1, port / 1e6), changed=True)
        return deployment_payload(payload(row()), deployed, "auto")

    assert record(8000, 11) == record(9000, 22)
    assert "pid" not in json.dumps(record(8000, 11).model_dump(mode="json"))
    assert record(8000, 11).slots[1].cores == [1]
