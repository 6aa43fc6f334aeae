import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from deploy_standin import payload, row

from hgpu.core.errors import EngineError
from hgpu.deploy import launch
from hgpu.deploy.driver import Deployed
from hgpu.deploy.launch import PlanRef, VllmCommands, deployment_name
from hgpu.deploy.record import deployment_payload
from hgpu.deploy.state import Phase, Role, SlotState, State
from hgpu.runtime.completion import Completion
from hgpu.runtime.machine import Place


@pytest.fixture(autouse=True)
def _installed(monkeypatch):
    monkeypatch.setattr(launch.importlib.util, "find_spec", lambda name: SimpleNamespace(name=name))


def after(command, flag):
    return command[command.index(flag) + 1]


def test_engine_listens_on_this_machine_only_under_its_models_name(tmp_path):
    folder = tmp_path / "tiny"
    folder.mkdir()
    plan = payload(row(), model_source=str(folder))
    made = VllmCommands("py").engine(plan, row().point, Place(cores=(3,)), 8123, "dummy")
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
        VllmCommands().engine(payload(row()), row().point, Place(cores=(3,)), 1, "auto").command, flags[2]
    ) == ("some/model")


def test_gpu_indices_follow_nvmls_order():
    point = row(gpu="L4", tp=2).point
    made = VllmCommands("py").engine(payload(), point, Place(gpus=(1, 3)), 1, "auto")
    assert made.environment["CUDA_VISIBLE_DEVICES"] == "1,3"
    assert made.environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


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
        VllmCommands().engine(payload(), row().point, Place(cores=(0,)), 1, "auto")
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
