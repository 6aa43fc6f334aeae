import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from ec2_cases import driver
from moto_server import MotoServer


@pytest.fixture(scope="session")
def moto_process(tmp_path_factory):
    server = MotoServer(tmp_path_factory.mktemp("moto") / "log")
    yield server
    server.stop()


@pytest.fixture
def moto(moto_process):
    """A server with nothing in it."""
    moto_process.reset()
    return moto_process


@pytest.fixture
def ec2(moto):
    return moto.client()


@pytest.fixture
def aws(moto):
    return driver(moto)
