import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(1, str(Path(__file__).parents[1] / "ec2"))
from machine_room import MachineRoom, prepare
from moto_server import MotoServer


@pytest.fixture(scope="session")
def moto_process(tmp_path_factory):
    server = MotoServer(tmp_path_factory.mktemp("moto") / "log")
    yield server
    server.stop()


@pytest.fixture
def moto(moto_process):
    """A server with a bucket and an instance profile, and nothing else in it."""
    prepare(moto_process)
    return moto_process


@pytest.fixture
def ec2(moto):
    return moto.client()


@pytest.fixture
def s3(moto):
    return moto.client(service="s3")


@pytest.fixture
def room(moto, tmp_path):
    """Boots every machine that is launched, with the script that EC2 holds for it."""
    with MachineRoom(moto, tmp_path / "machines") as made:
        yield made
