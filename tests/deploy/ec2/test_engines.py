"""The rungs of the health ladder above EC2's own checks, with servers that really answer."""

import subprocess
import sys
from pathlib import Path

import pytest
from ec2_cases import apply, driver, living, options, plan_of, pool

from hgpu.core.errors import EngineError
from hgpu.deploy.ec2.engines import private_urls
from hgpu.deploy.ec2.record import ec2_payload
from hgpu.deploy.state import Phase
from hgpu.runtime.health import Server, wait_healthy
from hgpu.runtime.ports import free_ports, local_url


@pytest.fixture
def engine(tmp_path):
    """A stand-in for the engine of a machine; its URL."""
    (port,) = free_ports(1)
    script = Path(__file__).parents[1] / "standin_server.py"
    log = tmp_path / "engine.log"
    with log.open("wb") as stream:
        process = subprocess.Popen([sys.executable, "-S", "-E", script, str(port)], stderr=stream)
    wait_healthy([Server("engine", local_url(port), log, lambda: process.poll() is None)], 20)
    yield process, local_url(port)
    process.kill()
    process.wait()


def test_engines_are_asked_for_health_model_and_a_token(moto, ec2, engine, tmp_path):
    process, url = engine
    asked = []

    def addresses(private_ip, engines):
        asked.append(private_ip)
        return [url] * engines

    aws = driver(moto, addresses=addresses)
    plan = plan_of(tmp_path, pool("l4", 2), model_source="stand-in")
    up = apply(aws, plan, tmp_path, private_addresses=True)
    assert [answer.engine for answer in up.answers] == ["l4-0/engine-0", "l4-1/engine-0"]
    assert all(answer.completion.tokens > 0 for answer in up.answers)
    assert set(asked) == {machine["PrivateIpAddress"] for machine in living(ec2)}
    record = ec2_payload(up, options())
    assert record.completion_tokens == sum(answer.completion.tokens for answer in up.answers)
    assert [row.slot for row in record.slots] == ["l4-0/engine-0", "l4-1/engine-0"]
    assert "--tensor-parallel-size" in record.slots[0].command
    (status,) = aws.status(tmp_path)
    assert {slot.healthy for slot in status.slots} == {True} and status.phase is Phase.READY
    process.kill()
    process.wait()
    (status,) = aws.status(tmp_path)
    assert status.phase is Phase.DEGRADED and "isn't healthy" in status.drift[0]
    aws.destroy(tmp_path, "chat")


def test_an_engine_that_serves_another_model_is_no_success(moto, ec2, engine, tmp_path):
    aws = driver(moto, addresses=lambda _, engines: [engine[1]] * engines)
    with pytest.raises(EngineError, match="serves stand-in"):
        apply(aws, plan_of(tmp_path, pool("l4", 1)), tmp_path, private_addresses=True)
    assert living(ec2) == []


def test_an_engine_that_never_answers_is_named(moto, ec2, tmp_path):
    (port,) = free_ports(1)
    aws = driver(moto, addresses=lambda _, engines: [local_url(port)] * engines)
    with pytest.raises(EngineError, match="l4-0/engine-0 is not healthy"):
        apply(aws, plan_of(tmp_path, pool("l4", 1)), tmp_path, private_addresses=True)
    assert living(ec2) == []


def test_a_machine_of_four_gpus_runs_four_engines_each_on_a_gpu_and_a_port_of_its_own(moto, tmp_path):
    plan = plan_of(tmp_path, pool("l4", 1, offer="aws/g6.12xlarge", gpus_per_machine=4, engines=4))
    up = apply(driver(moto), plan, tmp_path)
    record = ec2_payload(up, options())
    assert [row.slot for row in record.slots] == [f"l4-0/engine-{number}" for number in range(4)]
    assert [row.gpus for row in record.slots] == [[0], [1], [2], [3]]
    ports = [word for row in record.slots for word in row.command if word.endswith(":8000")]
    assert ports == [f"{port}:8000" for port in (8000, 8001, 8002, 8003)]
    assert private_urls("10.0.0.1", 2) == ["http://10.0.0.1:8000", "http://10.0.0.1:8001"]
