"""Which points take the same steps, and how they are told apart."""

from dataclasses import replace

import pytest

from hgpu.core.errors import InputError
from hgpu.core.experts import ExpertCache
from hgpu.core.operating_point import EngineOptions, Mode, OperatingPoint, names_of, timed_points

QUARTER = ExpertCache(0.25)


def point(tokens: int, mode: Mode = Mode.MIXED, gpu: str = "L4", **engine: int) -> OperatingPoint:
    experts = QUARTER if mode is Mode.OFFLOAD else None
    return OperatingPoint(gpu, mode=mode, engine=EngineOptions(tokens, **engine), experts=experts)


def test_a_point_times_itself_and_what_only_chooses_otherwise_what_is_in_a_step() -> None:
    timed = point(2048)
    assert timed.times(timed)
    assert timed.times(point(512)) and timed.times(point(512, Mode.PD))


@pytest.mark.parametrize(
    "other",
    [
        point(4096),
        point(2048, gpu="A10G"),
        point(2048, max_num_seqs=8),
        point(2048, Mode.OFFLOAD),
        replace(point(2048), tp=2),
    ],
)
def test_it_times_no_larger_step_and_no_other_engine(other: OperatingPoint) -> None:
    assert not point(2048).times(other)


def test_what_was_measured_in_mode_pd_is_not_taken_for_mixed() -> None:
    assert not point(2048, Mode.PD).times(point(2048))


def test_steps_are_timed_once_an_engine_for_the_largest_budget() -> None:
    points = [point(512), point(2048), point(512, Mode.PD), point(512, gpu="A10G"), point(512, Mode.OFFLOAD)]
    timed = timed_points(points)
    assert [timed[each] for each in points] == [
        point(2048),
        point(2048),
        point(2048),
        point(512, gpu="A10G"),
        point(512, Mode.OFFLOAD),
    ]


def test_names_have_the_budget_only_where_it_is_needed() -> None:
    names = names_of([point(512), point(2048), point(512, gpu="A10G"), point(512, Mode.PD)])
    assert list(map(names.get, [point(512), point(2048), point(512, gpu="A10G"), point(512, Mode.PD)])) == [
        "L4 512t",
        "L4 2048t",
        "A10G",
        "L4 pd",
    ]


def test_an_expert_cache_is_of_mode_offload_and_names_its_points() -> None:
    assert point(512, Mode.OFFLOAD).name == "L4 offload 25% pinned_lfu"
    few, many = (point(512, Mode.OFFLOAD, max_num_seqs=seqs) for seqs in (4, 64))
    names = names_of([few, many])
    assert [names[few], names[many]] == [
        "L4 offload 25% pinned_lfu 4 seqs 512t",
        "L4 offload 25% pinned_lfu 64 seqs 512t",
    ]
    for mode, cache in ((Mode.OFFLOAD, None), (Mode.MIXED, QUARTER), (Mode.PD, QUARTER)):
        with pytest.raises(InputError, match=f"in mode '{mode}' with"):
            OperatingPoint("L4", mode=mode, experts=cache)


def test_slots_of_layers_are_all_alike_or_those_that_were_divided() -> None:
    assert QUARTER.slots_of(32, 4, 3) == (8, 8, 8)
    divided = replace(QUARTER, layer_slots=(4, 12, 8))
    assert divided.slots_of(32, 4, 3) == (4, 12, 8)
    for other in ((32, 4, 2), (32, 5, 3), (11, 4, 3)):
        with pytest.raises(InputError, match="don't fit the model"):
            divided.slots_of(*other)
