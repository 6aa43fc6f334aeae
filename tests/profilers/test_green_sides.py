"""What can be held without a GPU: refusals, and which side is cut."""

import importlib.util

import pytest

from hgpu.catalog.gpus import resolve_gpu
from hgpu.core.errors import EngineError, InputError
from hgpu.core.partition import Split
from hgpu.latency.lattice import lattice_of
from hgpu.profilers.green_sides import cut_side, green_device
from hgpu.profilers.mini_shape import MiniShape


def has_gpu() -> bool:
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return bool(torch.cuda.is_available())


def test_every_split_of_a_hopper_can_be_cut_and_the_rest_remains() -> None:
    for split in lattice_of(resolve_gpu("H200")):
        units, prefill = cut_side(split, 8)
        assert units % 8 == 0 and units == (split.prefill_units if prefill else split.decode_units)
    assert cut_side(Split(112, 20), 8) == (112, True) and cut_side(Split(116, 16), 8) == (16, False)


def test_a_split_that_no_group_makes_is_refused() -> None:
    with pytest.raises(InputError, match="groups of 8"):
        cut_side(Split(66, 66), 8)


@pytest.mark.skipif(has_gpu(), reason="there is a GPU")
def test_without_a_gpu_it_says_so() -> None:
    with pytest.raises(EngineError, match="green contexts can't be made: torch") as caught:
        green_device(MiniShape(), 1024)
    assert "hgpu[partition]" in caught.value.fix
