import pytest
from deploy_standin import payload, row

from hgpu.catalog.gpus import AttachedGpu
from hgpu.core.errors import Infeasible, UnknownName
from hgpu.deploy.drivers import TARGETS, driver_of
from hgpu.deploy.slots import engine_slots
from hgpu.runtime.machine import Machine


def card(index, gpu):
    return AttachedGpu(index, gpu, gpu or "unknown", f"GPU-{index}", 80 * 2**30, "1")


MIXED = Machine(
    cores=(2, 3, 4, 5), gpus=tuple(card(n, g) for n, g in enumerate(["L4", "H100-SXM", "L4", "L4", None]))
)


def test_engines_share_neither_cores_nor_gpus():
    plan = payload(
        row("b", "L4", engines=1, tp=2), row("a", "cpu-2core", engines=2), row("c", "L4", engines=1)
    )
    slots = engine_slots(plan, MIXED)
    assert [(s.name, s.pool, s.place.cores, s.place.gpus) for s in slots] == [
        ("engine-0", "a", (2, 3), ()),
        ("engine-1", "a", (4, 5), ()),
        ("engine-2", "b", (), (0, 2)),
        ("engine-3", "c", (), (3,)),
    ]


def test_order_of_rows_does_not_matter():
    rows = [row("b", "L4", engines=1), row("a", "cpu-1core", engines=2), row("c", "H100-SXM", engines=1)]
    assert engine_slots(payload(*rows), MIXED) == engine_slots(payload(*rows[::-1]), MIXED)


@pytest.mark.parametrize(
    ("rows", "needs"),
    [
        ([row("a", "cpu-2core", engines=3)], "3 engines of pool 'a' with 2 CPU cores each"),
        ([row("a", "L4", engines=2, tp=2)], "2 engines of pool 'a' with 2 × L4 each"),
        ([row("a", "H200", engines=1)], "1 engines of pool 'a' with 1 × H200 each"),
    ],
)
def test_too_small_a_machine_says_what_is_needed_and_what_is_there(rows, needs):
    with pytest.raises(Infeasible) as caught:
        engine_slots(payload(*rows), MIXED)
    assert needs in caught.value.why
    assert "4 CPU cores and L4, H100-SXM, L4, L4, unknown" in caught.value.why


def test_empty_plan_is_infeasible():
    with pytest.raises(Infeasible, match="no engines"):
        engine_slots(payload(), MIXED)


def test_unknown_target_lists_the_known():
    assert driver_of("local") is TARGETS["local"]
    with pytest.raises(UnknownName, match="local"):
        driver_of("loca")
