"""Where a fine-tune's processes run, as the environment and the spec say."""

import pytest

from hgpu.core.errors import InputError
from hgpu.tuning.launch import Nodes, nodes_told, starts_processes
from hgpu.tuning.ranks import ALONE, joined

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")
PLACE = {"HGPU_NODES": "2", "HGPU_NODE_RANK": "1", "HGPU_LEADER_ADDRESS": "tune-0.tune"}


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*TORCHRUN, *PLACE):
        monkeypatch.delenv(name, raising=False)


def say(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_a_machine_is_alone_unless_it_is_told_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    assert nodes_told() == Nodes(0, 1) and not starts_processes(1) and starts_processes(2)
    say(monkeypatch, **PLACE)
    assert nodes_told() == Nodes(1, 2, "tune-0.tune") and starts_processes(1)


def test_machines_meet_at_the_first_ones_port() -> None:
    assert Nodes(0, 2, "tune-0.tune").endpoint == "tune-0.tune:29500"
    assert Nodes(0, 2, "10.0.0.4:1234").endpoint == "10.0.0.4:1234"
    assert Nodes(0, 2, "[fd00::4]").endpoint == "[fd00::4]:29500"


@pytest.mark.parametrize(
    "wrong",
    [{"HGPU_NODE_RANK": "2"}, {"HGPU_NODE_RANK": ""}, {"HGPU_NODES": "x"}, {"HGPU_LEADER_ADDRESS": ""}],
)
def test_half_a_place_is_refused(monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str]) -> None:
    say(monkeypatch, **{**PLACE, **wrong})
    with pytest.raises(InputError, match="place among others isn't clear") as raised:
        nodes_told()
    assert "HGPU_NODE_RANK=0" in raised.value.fix


def test_a_process_of_torchrun_joins_the_others_if_they_are_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, RANK="0", WORLD_SIZE="3", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1")
    assert not starts_processes(2)
    with pytest.raises(InputError, match="trains on 2 devices, and there are 3 processes"), joined(2):
        pass
    say(monkeypatch, WORLD_SIZE="1")
    with joined(1) as ranks:
        assert ranks == ALONE and ranks.leads and ranks.total(2.5) == 2.5 and ranks.told("x") == "x"
