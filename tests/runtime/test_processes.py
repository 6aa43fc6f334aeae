import os
import sys
import time

import psutil
import pytest

from hgpu.core.errors import EngineError
from hgpu.runtime.ports import free_ports
from hgpu.runtime.processes import found, is_leader, is_running, listens, spawn, stop
from hgpu.runtime.tags import slot_of, tag_of, tagged, tagged_deployments

SLEEP = [sys.executable, "-S", "-E", "-c", "import time; time.sleep(600)"]
FAMILY = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-S", "-E", "-c", "import time; time.sleep(600)"])
print("up", flush=True)
time.sleep(600)
"""


@pytest.fixture
def started(tmp_path):
    """Start a command tagged as slot `s` of deployment `d` in tmp_path; all is stopped at the end."""
    folder = tmp_path / "d"

    def start(command=SLEEP, cores=()):
        return spawn(command, dict(os.environ), cores, folder / "s.log", tag_of("d", "s", folder))

    yield start
    assert stop(tagged("d", folder), grace_s=1) == []


def wait_for_line(log):
    deadline = time.monotonic() + 10
    while not (log.exists() and log.read_text().endswith("\n")):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_spawned_process_is_detached_bound_and_logged(started, tmp_path):
    core = min(os.sched_getaffinity(0))
    before = os.sched_getaffinity(0)
    script = "import os, sys, time; print(sys.stdin.read() == '', flush=True); time.sleep(600)"
    pid, created = started([sys.executable, "-S", "-c", script], [core])
    assert os.sched_getaffinity(0) == before
    assert os.getsid(pid) == pid
    assert is_running(pid, created)
    assert psutil.Process(pid).cpu_affinity() == [core]
    wait_for_line(tmp_path / "d" / "s.log")
    assert (tmp_path / "d" / "s.log").read_text() == "True\n"


def test_earlier_log_is_kept_once(started, tmp_path):
    for text in ("one", "two", "three"):
        pid, _ = started([sys.executable, "-S", "-c", f"print('{text}')"])
        psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=10)
    assert (tmp_path / "d" / "s.log").read_text() == "three\n"
    assert (tmp_path / "d" / "s.previous.log").read_text() == "two\n"


def test_missing_program_is_an_engine_error(started):
    with pytest.raises(EngineError, match="no-such-program"):
        started(["no-such-program"])


def test_pid_of_another_time_is_not_running(started):
    pid, created = started()
    assert not is_running(pid, created - 60)
    process = found(pid, created)
    process.kill()
    deadline = time.monotonic() + 10
    while is_running(pid, created):  # a zombie until somebody waits for it
        assert time.monotonic() < deadline
    assert not is_running(pid, created)


def test_children_of_a_killed_leader_are_found_by_tag(started, tmp_path):
    pid, created = started([sys.executable, "-S", "-c", FAMILY])
    wait_for_line(tmp_path / "d" / "s.log")
    family = tagged("d", tmp_path / "d")
    assert [is_leader(process) for process in family] == [True, False]
    found(pid, created).kill()
    psutil.wait_procs(family[:1], timeout=10)
    (orphan,) = tagged("d", tmp_path / "d")
    assert slot_of(orphan) == "s"
    assert stop([orphan]) == []
    assert tagged("d", tmp_path / "d") == []


def test_stop_takes_children_along_and_kills_the_deaf(started, tmp_path):
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + FAMILY
    pid, created = started([sys.executable, "-S", "-c", deaf])
    wait_for_line(tmp_path / "d" / "s.log")
    assert stop([found(pid, created)], grace_s=0.3) == []
    assert tagged("d", tmp_path / "d") == []


def test_tags_tell_state_folders_apart(started, tmp_path):
    started()
    assert tagged("d", tmp_path / "elsewhere" / "d") == []
    assert tagged("e", tmp_path / "d") == []
    assert tagged_deployments(tmp_path) == {"d"}
    assert tagged_deployments(tmp_path / "elsewhere") == set()


def test_listens_finds_the_owner_of_a_port(started):
    (port,) = free_ports(1)
    script = f"import socket, time; s = socket.create_server(('127.0.0.1', {port})); time.sleep(600)"
    pid, created = started([sys.executable, "-S", "-c", script])
    process = found(pid, created)
    deadline = time.monotonic() + 10
    while not listens([process], port):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not listens([psutil.Process()], port)
    assert not listens([process], port + 1)


def test_free_ports_differ():
    assert len(set(free_ports(50))) == 50
