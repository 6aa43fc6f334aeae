"""What dies or hangs of a deployment is started again, by itself."""

import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from functools import partial

import psutil
import pytest
from deploy_standin import StandInCommands, row, saved_plan

from hgpu.core.errors import HgpuError
from hgpu.deploy import supervise
from hgpu.deploy.driver import DeployOptions
from hgpu.deploy.launch import VllmCommands
from hgpu.deploy.local import LocalDriver
from hgpu.deploy.lock import locked
from hgpu.deploy.state import Phase, read_state, write_state
from hgpu.deploy.supervise import HANGS_S, YOUNG_S, Supervisor
from hgpu.runtime.completion import complete
from hgpu.runtime.health import is_healthy
from hgpu.runtime.machine import Machine
from hgpu.runtime.processes import is_running, stop


class Clock:
    """Moments that only the test moves."""

    def __init__(self):
        self.s = 1e6

    def __call__(self):
        return self.s


def supervisor(bench):
    return Supervisor(bench.folder, bench.steps.append, Clock())


def kill(slot):
    psutil.Process(slot.pid).kill()
    psutil.wait_procs([psutil.Process(slot.pid)] if psutil.pid_exists(slot.pid) else [], timeout=5)


def look(mine, bench):
    mine.look(read_state(bench.folder))
    return read_state(bench.folder)


def until_ready(mine, bench, name):
    deadline = time.monotonic() + 20
    while look(mine, bench).slot(name).phase is not Phase.READY:
        assert time.monotonic() < deadline
    return read_state(bench.folder).slot(name)


def test_what_died_is_started_again_and_nothing_else(bench):
    first = bench.apply().state
    mine = supervisor(bench)
    assert look(mine, bench) == first
    kill(first.slot("engine-1"))
    again = look(mine, bench)
    assert again.slot("engine-1").phase is Phase.STARTING
    ready = until_ready(mine, bench, "engine-1")
    assert ready.pid != first.slot("engine-1").pid
    assert ready.model_copy(update={"pid": None, "created": None}) == first.slot("engine-1").model_copy(
        update={"pid": None, "created": None}
    )
    assert [s for s in read_state(bench.folder).slots if s.slot != "engine-1"] == [
        s for s in first.slots if s.slot != "engine-1"
    ]
    assert bench.status().phase is Phase.READY
    assert not bench.apply().changed


def test_what_keeps_dying_is_started_later_and_later(bench):
    state = bench.apply().state
    mine = supervisor(bench)
    waits = []
    for _ in range(9):
        kill(read_state(bench.folder).slot("engine-0"))
        died_s = mine.now_s.s
        before = read_state(bench.folder).slot("engine-0").pid
        while look(mine, bench).slot("engine-0").pid == before:
            mine.now_s.s += 0.5
        waits.append(mine.now_s.s - died_s)
    assert waits == [0, 1, 2, 4, 8, 16, 32, 60, 60]
    until_ready(mine, bench, "engine-0")
    mine.now_s.s += YOUNG_S + 1
    look(mine, bench)
    kill(read_state(bench.folder).slot("engine-0"))
    grown_up = read_state(bench.folder).slot("engine-0").pid
    assert look(mine, bench).slot("engine-0").pid != grown_up
    assert read_state(bench.folder).slot("engine-1") == state.slot("engine-1")


def test_what_hangs_is_stopped_and_started_again(bench, monkeypatch):
    monkeypatch.setattr(supervise, "is_healthy", partial(is_healthy, timeout_s=0.2))
    state = bench.apply().state
    mine = supervisor(bench)
    look(mine, bench)
    hung = state.slot("engine-0")
    os.kill(hung.pid, signal.SIGSTOP)
    mine.now_s.s += HANGS_S - 1
    assert look(mine, bench).slot("engine-0") == hung
    mine.now_s.s += 10
    monkeypatch.setattr("hgpu.deploy.running.stop", partial(stop, grace_s=0.2))
    look(mine, bench)
    assert not is_running(hung.pid, hung.created)
    assert until_ready(mine, bench, "engine-0").pid != hung.pid


def test_orphans_of_what_died_go(bench):
    driver = bench.misbehaving("child")
    state = bench.apply(driver).state
    kill(state.slot("engine-0"))
    mine = supervisor(bench)
    look(mine, bench)
    until_ready(mine, bench, "engine-0")
    assert bench.status().drift == ()


def test_while_another_hgpu_works_on_it_nothing_is_touched(bench):
    state = bench.apply().state
    kill(state.slot("engine-0"))
    mine = supervisor(bench)
    with locked(bench.folder):
        for _ in range(3):
            look(mine, bench)
    assert read_state(bench.folder) == state
    assert sum("another hgpu is working on it" in step for step in bench.steps) == 1
    write_state(bench.folder, state.model_copy(update={"phase": Phase.STARTING}))
    assert look(mine, bench).slot("engine-0") == state.slot("engine-0")


def test_a_deploy_waits_for_a_moment_of_the_supervisors_but_for_nobody_else(bench):
    bench.apply()
    inside, leave = threading.Event(), threading.Event()

    def hold():
        with locked(bench.folder, brief=True):
            inside.set()
            leave.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait(20)
    with pytest.raises(HgpuError, match="another hgpu"), locked(bench.folder, brief=True):
        pass  # the supervisor itself never waits
    waiting = threading.Thread(target=bench.apply)
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive()
    leave.set()
    waiting.join(20)
    holder.join(20)
    assert not waiting.is_alive() and not holder.is_alive()


def test_it_ends_with_its_deployment(bench):
    bench.apply()
    mine = Supervisor(bench.folder, bench.steps.append)
    running = threading.Thread(target=mine.run)
    running.start()
    bench.destroy()
    running.join(20)
    assert not running.is_alive()


@dataclass(frozen=True)
class WithRealRouter(StandInCommands):
    """Stand-ins for the engines only."""

    def router(self, ref, port, metrics_port, pools, prefills):
        return VllmCommands(sys.executable).router(ref, port, metrics_port, pools, prefills)

    def supervisor(self, folder):
        return VllmCommands(sys.executable).supervisor(folder)


def test_an_engine_killed_under_load_costs_no_request_and_comes_back(bench):
    script = bench.root / "server.py"
    driver = LocalDriver(WithRealRouter(script, ("slow",)), lambda: Machine((0, 1), ()))
    plan = saved_plan(bench.root, row("a", engines=1), row("b", engines=1))
    deployed = driver.apply(plan, bench.root, DeployOptions(timeout_s=30), print)
    name, url = deployed.state.name, deployed.state.front_url
    failures, served, enough = [], [], threading.Event()

    def ask():
        while not enough.is_set():
            try:
                served.append(complete(url, "stand-in", "hello", 4).tokens)
            except HgpuError as error:
                failures.append(str(error))

    clients = [threading.Thread(target=ask) for _ in range(4)]
    try:
        for client in clients:
            client.start()
        victim = deployed.state.slot("engine-0")
        for _ in range(2):
            psutil.Process(victim.pid).kill()
            deadline = time.monotonic() + 40
            while True:
                (status,) = driver.status(bench.root, name)
                slot = next(s for s in status.slots if s.slot == "engine-0")
                if status.phase is Phase.READY and slot.pid != victim.pid:
                    break
                assert time.monotonic() < deadline, status
            victim = slot
    finally:
        enough.set()
        for client in clients:
            client.join(30)
        driver.destroy(bench.root, name)
    assert failures == []
    assert len(served) > 20 and set(served) == {4}
