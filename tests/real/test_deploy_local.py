"""The target `local` with real vLLM engines on CPU cores and the real vllm-router."""

import os
import time
import urllib.request
from dataclasses import replace

import psutil
import pytest

from hgpu.artifacts.payloads.plan import AllocationRow, PlanPayload, Solver
from hgpu.artifacts.store import Draft, save
from hgpu.core.gpu import DType
from hgpu.core.operating_point import EngineOptions, Mode, OperatingPoint
from hgpu.core.phases import PhaseOptions, Phases
from hgpu.core.provenance import Provenance
from hgpu.core.step import StepModel
from hgpu.deploy.driver import DeployOptions
from hgpu.deploy.drivers import TARGETS
from hgpu.deploy.record import deployment_payload
from hgpu.deploy.state import Phase, log_path
from hgpu.runtime.completion import complete, served_model
from hgpu.runtime.tags import tagged
from hgpu.runtime.tiny_model import make_tiny_model
from hgpu.runtime.vllm.options import SCHEDULER

pytestmark = pytest.mark.vllm

LOCAL = TARGETS["local"]
OPTIONS = DeployOptions(load_format="dummy", timeout_s=300)


def two_engines(model):
    engine = EngineOptions(max_num_batched_tokens=512, max_num_seqs=8, max_model_len=512, enforce_eager=True)
    point = OperatingPoint(gpu="cpu-1core", dtype=DType.FP32, engine=engine)
    row = AllocationRow(
        pool="tiny",
        offer="local/this",
        region="here",
        market="owned",
        gpu="cpu-1core",
        gpus_per_machine=1,
        tp=1,
        mode="mixed",
        count=2,
        engines=2,
        usd_per_hour=0.1,
        utilization=0.5,
        price_date="2026-01-01",
        price_source="test",
        point=point,
        safety_factor=1.0,
    )
    return PlanPayload(
        status="optimal",
        cost_usd_per_hour=0.1,
        idle_usd_per_hour=0.0,
        served=1.0,
        confidence=0.5,
        allocation=[row],
        baselines=[],
        savings_vs_best_single_type=None,
        routing=[],
        predicted=[],
        forbidden=[],
        solver=Solver(
            name="none", status="optimal", gap=0, bound_usd_per_hour=0.1, variables=0, constraints=0
        ),
        provenance=Provenance.ESTIMATED,
        service="tiny",
        model=None,
        model_source=str(model),
        slo=None,
        tiers=[],
        workload=None,
    )


@pytest.fixture
def plan(tmp_path):
    model = make_tiny_model(tmp_path / "tiny-llama", hidden_size=128, layers=2, max_context_tokens=512)
    yield save(tmp_path, Draft(kind="plan", slug="tiny", payload=two_engines(model)))
    for name in LOCAL.names(tmp_path):
        LOCAL.destroy(tmp_path, name)


def timed(label, action, *arguments):
    started = time.monotonic()
    result = action(*arguments)
    seconds = time.monotonic() - started
    print(f"{label}: {seconds:.1f} s")
    return result, seconds


def routers_metrics(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    rows = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in rows}


def recovered(root, victim):
    """Wait until the deployment is whole again, by itself, with another process for the victim."""
    deadline = time.monotonic() + 120
    while True:
        (status,) = LOCAL.status(root)
        pids = [slot.pid for slot in status.slots]
        if status.phase is Phase.READY and victim not in pids:
            return
        assert time.monotonic() < deadline, status
        time.sleep(0.2)  # nothing tells when another process's server is healthy


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_two_engines_and_a_router_live_die_and_go(plan, tmp_path):
    arguments = (plan, tmp_path, OPTIONS, print)
    deployed, _ = timed("deploy", LOCAL.apply, *arguments)
    name, state = deployed.state.name, deployed.state
    folder = tmp_path / "state" / name
    assert deployed.changed and deployed.completion.tokens >= 1
    assert served_model(state.front_url) == "tiny-llama"
    for _ in range(4):
        assert complete(state.front_url, "tiny-llama", "def main", 4).tokens >= 1
    before = routers_metrics(state.slot("router").metrics_port)
    assert before['hgpu_router_answers_total{pool="tiny",status="200"}'] >= 6  # 5 completions, the models
    for _ in range(2):  # when the second is answered, the router has learnt from the first
        complete(state.front_url, "tiny-llama", "x", 4)  # a byte for each of its tokens, or less
    after = routers_metrics(state.slot("router").metrics_port)
    # The engine's count was read from its answer.
    assert after["hgpu_router_bytes_per_token"] < before["hgpu_router_bytes_per_token"]
    (status,) = LOCAL.status(tmp_path)
    assert (status.phase, status.drift) == (Phase.READY, ())
    record = deployment_payload(plan.payload, deployed, OPTIONS.load_format)
    assert len(record.slots) == 2 and record.router[0] == "python"

    again, seconds = timed("second deploy", LOCAL.apply, *arguments)
    assert not again.changed and again.state == state
    assert seconds < 5

    victim = state.slot("engine-1").pid
    psutil.Process(victim).kill()
    timed("recovery", recovered, tmp_path, victim)
    again, _ = timed("third deploy", LOCAL.apply, *arguments)
    assert not again.changed
    others = [slot for slot in state.slots if slot.slot != "engine-1"]
    assert [slot for slot in again.state.slots if slot.slot != "engine-1"] == others

    _, _ = timed("destroy", LOCAL.destroy, tmp_path, name)
    assert tagged(name, folder) == []
    assert LOCAL.status(tmp_path) == []


def test_a_planned_engine_in_mode_pd_runs_with_the_phase_scheduler(plan, tmp_path):
    step = StepModel(2e-3, 15e-3, 4e-9, 1e-7, 2e-5, 200.0, 4.0)
    (row,) = plan.payload.allocation
    point = replace(row.point, mode=Mode.PD)
    told = Phases(PhaseOptions(15.0, 0.05), step)
    update = {"mode": "pd", "point": point, "phases": told, "count": 1, "engines": 1}
    payload = plan.payload.model_copy(update={"allocation": [row.model_copy(update=update)]})
    made = save(tmp_path, Draft(kind="plan", slug="phases", payload=payload))
    deployed = LOCAL.apply(made, tmp_path, OPTIONS, print)
    assert complete(deployed.state.front_url, "tiny-llama", "x " * 200, 4).tokens >= 1
    log = log_path(tmp_path / "state" / deployed.state.name, "engine-0").read_text()
    assert f"Using custom scheduler class {SCHEDULER}" in log
    assert deployment_payload(payload, deployed, "dummy").slots[0].command.count("--scheduler-cls") == 1
