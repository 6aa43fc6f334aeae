import os

import pytest

from hgpu.core.errors import HgpuError, InputError
from hgpu.deploy.lock import locked, worker
from hgpu.deploy.state import (
    Phase,
    Role,
    SlotState,
    State,
    held_places,
    read_state,
    recorded_names,
    write_state,
)


def some_state(phase=Phase.READY):
    slot = SlotState(slot="engine-0", role=Role.ENGINE, port=1, cores=[0], gpus=[2])
    return State(name="a", plan_digest="d", target="local", phase=phase, slots=[slot])


def test_state_comes_back_as_written(tmp_path):
    written = write_state(tmp_path, some_state())
    assert read_state(tmp_path) == written
    assert written.updated_at
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_no_state_is_none_and_a_bad_one_an_error(tmp_path):
    folder = tmp_path / "state" / "a"
    folder.mkdir(parents=True)
    assert read_state(folder) is None
    for text in ("", "{", '{"name": "a"}', "[]"):
        (folder / "state.json").write_text(text)
        with pytest.raises(InputError, match="hgpu destroy a"):
            read_state(folder)
    assert recorded_names(tmp_path) == ["a"]


def test_a_failed_write_keeps_the_old_state(tmp_path, monkeypatch):
    written = write_state(tmp_path, some_state())

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(HgpuError, match="No space left"):
        patch.setattr(os, "fsync", full)
        write_state(tmp_path, some_state(Phase.DEGRADED))
    assert read_state(tmp_path) == written


def test_destroyed_deployments_hold_nothing():
    assert held_places([some_state()]) == ({0}, {2})
    assert held_places([some_state(Phase.DESTROYED)]) == (set(), set())


def test_lock_names_its_holder_and_is_let_go(tmp_path):
    with locked(tmp_path / "a"):
        assert worker(tmp_path / "a") == os.getpid()
        with pytest.raises(HgpuError, match=f"pid {os.getpid()}"), locked(tmp_path / "a"):
            pass
    assert worker(tmp_path / "a") is None
    with locked(tmp_path / "a"):
        pass


def test_owner_of_a_dead_process_is_nobody(tmp_path):
    (tmp_path / "lock.owner").write_text(f"{os.getpid()} 12.5\n")
    assert worker(tmp_path) is None
