"""What the server is asked before a load: which token ids it knows, what its chat template adds."""

import pytest

from hgpu.bench.mock_process import mock_server
from hgpu.bench.probe import wording_for
from hgpu.bench.prompts import Wording
from hgpu.bench.target import Api, Target
from hgpu.core.errors import InvalidMeasurement


@pytest.mark.parametrize(
    ("vocabulary", "wording"),
    [(30000, Wording(1000, 30000)), (4096, Wording(1000, 3000)), (600, Wording(150, 300))],
)
def test_ids_stay_within_the_vocabulary(vocabulary: int, wording: Wording) -> None:
    with mock_server("--vocabulary", str(vocabulary)) as url:
        assert wording_for(Target(url, "mock")) == wording


def test_a_server_that_knows_no_id_is_told_so() -> None:
    with mock_server("--vocabulary", "10") as url, pytest.raises(InvalidMeasurement, match="token ids"):
        wording_for(Target(url, "mock"))


def test_a_busy_server_is_not_judged_by_the_probe() -> None:
    with mock_server("--fault", "429") as url:
        assert wording_for(Target(url, "mock")) == Wording(1000, 30000)
        assert wording_for(Target(url, "mock", Api.CHAT)) == Wording()


def test_what_the_template_adds_is_measured() -> None:
    with mock_server("--template-tokens", "13") as url:
        assert wording_for(Target(url, "mock", Api.CHAT)) == Wording(template_tokens=13)
