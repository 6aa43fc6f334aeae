import http.server
import json
import os
import signal
import subprocess
import threading
from functools import partial

import psutil
import pytest
from deploy_standin import row, saved_plan

from hgpu.core.errors import EngineError, HgpuError, Infeasible, InputError, UnknownName
from hgpu.deploy.driver import DeployOptions
from hgpu.deploy.state import Phase, read_state
from hgpu.runtime.processes import is_leader, stop
from hgpu.runtime.tags import slot_of, tagged

EVERYTHING = ["engine-0", "engine-1", "pool-chat", "router", "supervisor"]


def living(bench):
    return tagged(bench.name, bench.folder)


def leaders(bench):
    return sorted(slot_of(process) for process in living(bench) if is_leader(process))


def kill(slot):
    psutil.Process(slot.pid).kill()
    psutil.wait_procs([psutil.Process(slot.pid)] if psutil.pid_exists(slot.pid) else [], timeout=5)


def test_deploy_starts_engines_and_a_router_and_completes(bench):
    deployed = bench.apply()
    assert deployed.changed
    assert deployed.completion.tokens == 8
    assert deployed.completion.text.split() == ["word"] * 8
    assert 0 < deployed.completion.ttft_s <= deployed.completion.seconds
    assert leaders(bench) == EVERYTHING
    assert deployed.state.front_url == f"http://127.0.0.1:{deployed.state.slot('router').port}"
    status = bench.status()
    assert status.phase is Phase.READY and status.drift == ()
    assert all(slot.alive and slot.healthy for slot in status.slots)


def test_engines_are_bound_to_cores_of_their_own(bench):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core")
    state = bench.apply().state
    bound = [psutil.Process(state.slot(f"engine-{n}").pid).cpu_affinity() for n in (0, 1)]
    assert bound == [[0], [1]]


def test_one_engine_has_no_router(bench):
    plan = saved_plan(bench.root, row(engines=1))
    deployed = bench.apply(plan=plan)
    assert [slot.slot for slot in deployed.state.slots] == ["engine-0", "supervisor"]
    assert deployed.state.front_url == f"http://127.0.0.1:{deployed.state.slots[0].port}"


def test_second_deploy_changes_nothing(bench):
    first = bench.apply()
    again = bench.apply()
    assert not again.changed
    assert again.state == first.state
    assert again.completion.tokens == 8


def test_killed_engine_degrades_and_only_it_is_restarted(bench):
    first = bench.apply().state
    kill(first.slot("engine-1"))
    status = bench.status()
    assert status.phase is Phase.DEGRADED
    assert status.drift == ("engine-1 doesn't run",)
    again = bench.apply()
    assert again.changed
    assert again.state.slot("engine-0") == first.slot("engine-0")
    assert again.state.slot("router") == first.slot("router")
    assert again.state.slot("engine-1").pid != first.slot("engine-1").pid
    assert bench.status().phase is Phase.READY


def test_children_of_a_killed_engine_are_drift_and_go(bench):
    driver = bench.misbehaving("child")
    first = bench.apply(driver).state
    assert len(living(bench)) == 7
    kill(first.slot("engine-0"))
    assert "1 processes are left over from slots that don't run" in bench.status().drift
    bench.apply(driver)
    assert len(living(bench)) == 7
    kill(first.slot("engine-1"))
    assert bench.destroy().killed == 6
    assert living(bench) == []


def test_changed_command_restarts_the_engines(bench):
    first = bench.apply().state
    again = bench.apply(bench.misbehaving("child"))
    assert again.changed
    assert again.state.slot("engine-0").pid != first.slot("engine-0").pid
    assert again.state.slot("router").pid == first.slot("router").pid
    assert leaders(bench) == EVERYTHING


def test_destroy_leaves_nothing_and_can_be_repeated(bench):
    bench.apply()
    assert bench.destroy().killed == 5
    assert living(bench) == []
    assert bench.destroy().killed == 0
    assert bench.driver.status(bench.root) == []
    (status,) = bench.driver.status(bench.root, include_destroyed=True)
    assert status.phase is Phase.DESTROYED
    assert bench.apply().changed


def test_destroy_of_a_stubborn_engine_ends_with_sigkill(bench, monkeypatch):
    monkeypatch.setattr("hgpu.deploy.local.stop", partial(stop, grace_s=0.5))
    bench.apply(bench.misbehaving("stubborn"))
    assert bench.destroy().killed == 5
    assert living(bench) == []


def test_destroy_says_when_something_survives(bench, monkeypatch):
    bench.apply()
    with monkeypatch.context() as patch, pytest.raises(HgpuError, match="survived SIGKILL"):
        patch.setattr("hgpu.deploy.local.stop", lambda processes: list(processes))
        bench.destroy()
    assert read_state(bench.folder).phase is Phase.DESTROYING
    assert bench.apply().changed  # an unfinished destroy is finished first
    assert leaders(bench) == EVERYTHING


def test_unknown_name_lists_the_known_ones(bench):
    bench.apply()
    for verb in (bench.driver.destroy, bench.driver.status):
        with pytest.raises(UnknownName, match=bench.name):
            verb(bench.root, "chat-service-00000000")


def test_failing_engine_is_named_with_its_cause_and_nothing_stays(bench):
    with pytest.raises(EngineError) as caught:
        bench.apply(bench.misbehaving("die"))
    slot, _, what = caught.value.what.partition(" ")
    assert slot in ("engine-0", "engine-1") and what == "died while it started"
    assert caught.value.why == "ValueError: no such model"
    assert str(bench.folder / f"{slot}.log") in caught.value.fix
    assert living(bench) == []
    assert read_state(bench.folder).phase is Phase.DEGRADED
    assert bench.apply().changed
    assert bench.status().phase is Phase.READY


def test_failure_can_keep_what_runs(bench):
    bench.plan = saved_plan(bench.root, row(engines=1))
    with pytest.raises(EngineError, match="broke off"):
        bench.apply(bench.misbehaving("broken"), keep_on_failure=True)
    assert leaders(bench) == ["engine-0"]
    assert bench.status().phase is Phase.DEGRADED
    with pytest.raises(EngineError, match="broke off"):
        bench.apply(bench.misbehaving("broken", "again"))
    assert living(bench) == []


def test_failed_repair_keeps_what_ran_before(bench):
    first = bench.apply().state
    kill(first.slot("engine-0"))
    (bench.root / "server.py").write_text("raise SystemExit('gone bad')")
    with pytest.raises(EngineError, match="gone bad"):
        bench.apply()
    assert leaders(bench) == EVERYTHING[1:]


def test_sick_engine_times_out(bench):
    with pytest.raises(EngineError, match="not healthy after"):
        bench.misbehaving("sick").apply(bench.plan, bench.root, DeployOptions(timeout_s=0.5), print)
    assert living(bench) == []


def test_interrupt_takes_down_what_was_started(bench):
    def interrupt(step):
        if step == "engine-1: spawned":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.apply(progress=interrupt)
    assert living(bench) == []
    assert bench.status().phase is Phase.DEGRADED


def test_taken_port_is_left_to_its_owner(bench):
    servers = []

    class Healthy(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args): ...

        def do_GET(self):
            self.send_response(200)
            self.end_headers()

    def take(step):
        if step == "engine-0: starting" and not servers:
            port = read_state(bench.folder).slot("engine-0").port
            servers.append(http.server.HTTPServer(("127.0.0.1", port), Healthy))
            threading.Thread(target=servers[0].serve_forever).start()

    try:
        state = bench.apply(progress=take).state
        assert state.slot("engine-0").port != servers[0].server_port
        assert f"http://127.0.0.1:{state.slot('engine-0').port}" in state.slot("pool-chat").command
    finally:
        servers[0].shutdown()
        servers[0].server_close()


def test_concurrent_apply_and_destroy_are_refused_at_once(bench):
    refused = []

    def meanwhile(step):
        if step == "engine-0: spawned":
            for verb in (bench.apply, bench.destroy):
                with pytest.raises(HgpuError, match=f"pid {os.getpid()}") as caught:
                    verb()
                refused.append(caught.value.exit_code)
            assert bench.status().phase is Phase.STARTING

    bench.apply(progress=meanwhile)
    assert refused == [1, 1]


def test_corrupt_state_names_the_way_out(bench):
    bench.apply()
    (bench.folder / "state.json").write_text('{"name": "half')
    with pytest.raises(InputError, match=f"hgpu destroy {bench.name}"):
        bench.apply()
    assert "5 of its processes run" in bench.status().drift[0]
    assert bench.destroy().killed == 5
    assert living(bench) == []
    assert bench.apply().changed


def test_lost_state_is_found_by_tag(bench):
    bench.apply()
    (bench.folder / "state.json").unlink()
    assert bench.driver.names(bench.root) == [bench.name]
    assert bench.apply().changed  # the untold processes make way for new ones
    assert leaders(bench) == EVERYTHING
    (bench.folder / "state.json").unlink()
    assert bench.destroy().killed == 5


def test_other_results_folder_is_another_deployment(bench, tmp_path):
    bench.apply()
    other = tmp_path / "other"
    with pytest.raises(UnknownName):
        bench.driver.destroy(other, bench.name)
    assert len(living(bench)) == 5


def test_pid_of_another_process_is_not_ours(bench):
    state = bench.apply().state
    bystander = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        first = state.slot("engine-0")
        stolen = first.model_copy(update={"pid": bystander.pid, "created": first.created - 60})
        (bench.folder / "state.json").write_text(state.with_slot(stolen).model_dump_json())
        bench.destroy()
        assert bystander.poll() is None
    finally:
        bystander.send_signal(signal.SIGKILL)
        bystander.wait()


def test_no_room_for_a_second_deployment(bench):
    bench.apply()
    with pytest.raises(Infeasible, match="free here: 0 CPU cores"):
        bench.apply(plan=saved_plan(bench.root, row(pool="other")))
    bench.destroy()
    assert bench.apply(plan=saved_plan(bench.root, row(pool="other"))).changed


def test_api_key_stands_in_no_file_and_no_command(bench, monkeypatch):
    monkeypatch.setenv("HGPU_API_KEY", "canary-3141592")
    state = bench.apply().state
    commands = [psutil.Process(slot.pid).cmdline() for slot in state.slots]
    assert "canary" not in str(commands)
    for path in bench.root.rglob("*"):
        assert not path.is_file() or b"canary-3141592" not in path.read_bytes()
    monkeypatch.delenv("HGPU_API_KEY")
    with pytest.raises(EngineError, match="HGPU_API_KEY"):
        bench.apply()


def test_an_engines_last_words_are_quoted_without_secrets(bench, monkeypatch):
    monkeypatch.setenv("HGPU_API_KEY", "canary-3141592")
    monkeypatch.setenv("HF_TOKEN", "canary-2718281")
    with pytest.raises(EngineError) as caught:
        bench.apply(bench.misbehaving("tell"))
    assert "401 for $HF_TOKEN with $" in str(caught.value)
    assert "canary" not in str(caught.value) + "".join(caught.value.lines())
    logs = list(bench.folder.glob("*.log"))
    assert logs and all(path.stat().st_mode & 0o077 == 0 for path in logs)  # they may hold what engines say


def test_engines_and_router_listen_on_this_machine_only(bench):
    for slot in bench.apply().state.slots:
        listening = [c for c in psutil.Process(slot.pid).net_connections("tcp") if c.status == "LISTEN"]
        assert {c.laddr.ip for c in listening} == (set() if slot.slot == "supervisor" else {"127.0.0.1"})


def test_status_exits_with_4_where_a_deployment_is_degraded(bench, hgpu):
    first = bench.apply().state
    words = ("status", "--results", str(bench.root), "--json")
    done = hgpu(*words)
    assert done.returncode == 0, done.stderr
    kill(first.slot("engine-1"))
    done = hgpu(*words)
    assert done.returncode == 4 and json.loads(done.stdout)["deployments"][0]["phase"] == "degraded"
