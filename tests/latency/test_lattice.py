import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgpu.catalog.gpus import gpu_types, resolve_gpu
from hgpu.core.errors import InputError
from hgpu.core.partition import Split
from hgpu.latency.lattice import Lattice, lattice_of


@pytest.mark.parametrize("name", ["H100-SXM", "H200", "H100-NVL"])
def test_hopper_splits_by_eight_and_the_rest_goes_to_the_other_side(name: str) -> None:
    splits = lattice_of(resolve_gpu(name)).splits
    assert {Split(112, 20), Split(96, 36), Split(64, 68), Split(116, 16)} <= set(splits)
    assert splits[0] == Split(8, 124) and splits[-1] == Split(124, 8)
    assert len(splits) == 30


@pytest.mark.parametrize(
    ("name", "least", "step"),
    [("T4", 2, 2), ("V100", 2, 2), ("L4", 4, 2), ("A100-80GB", 4, 2), ("B200", 8, 8), ("RTX-PRO-6000", 8, 8)],
)
def test_the_architecture_says_how_fine_a_split_is(name: str, least: int, step: int) -> None:
    assert lattice_of(resolve_gpu(name)) == Lattice(resolve_gpu(name).sm_count, least, step)


def test_every_nvidia_type_can_be_split() -> None:
    for gpu in gpu_types().values():
        if gpu.vendor == "nvidia":
            assert lattice_of(gpu).splits


def test_a_cpu_splits_by_cores() -> None:
    assert lattice_of(resolve_gpu("cpu-4core")).splits == (Split(1, 3), Split(2, 2), Split(3, 1))


def test_one_core_can_not_be_split() -> None:
    with pytest.raises(InputError, match="can't be split"):
        lattice_of(resolve_gpu("cpu-1core"))


def test_a_type_whose_splits_are_unknown_is_refused() -> None:
    with pytest.raises(InputError, match="MI300X split isn't known"):
        lattice_of(resolve_gpu("MI300X"))


@pytest.mark.parametrize(("least", "step"), [(0, 8), (8, 0), (6, 4)])
def test_a_lattice_that_no_hardware_has_is_refused(least: int, step: int) -> None:
    with pytest.raises(InputError, match="no lattice"):
        Lattice(132, least, step)


@given(st.integers(16, 300), st.sampled_from([(1, 1), (2, 2), (4, 2), (8, 8)]))
def test_splits_use_the_whole_device_once_each_and_mirror(units: int, shape: tuple[int, int]) -> None:
    least, step = shape
    splits = Lattice(units, least, step).splits
    assert list(splits) == sorted(set(splits))
    assert {Split(s.decode_units, s.prefill_units) for s in splits} == set(splits)
    for split in splits:
        assert split.units == units and min(split.prefill_units, split.decode_units) >= least
        assert split.prefill_units % step == 0 or split.decode_units % step == 0
        assert split.prefill_share + split.decode_share == pytest.approx(1.0)
