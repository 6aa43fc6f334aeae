from dataclasses import replace

import pytest
from deploy_standin import payload, row

from hgpu.catalog.gpus import AttachedGpu
from hgpu.core.errors import Infeasible, InputError, UnknownName
from hgpu.core.operating_point import Mode
from hgpu.core.phases import PhaseOptions, Phases
from hgpu.deploy.drivers import TARGETS, driver_of
from hgpu.deploy.modes import paired
from hgpu.deploy.render.document import pools
from hgpu.deploy.slots import engine_slots, slot_states
from hgpu.deploy.state import Phase, State
from hgpu.runtime.machine import Machine
from hgpu.runtime.ports import local_url
from hgpu.runtime.vllm.folder_options import Side


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


def pair(pool="chat", gpu="cpu-2core", engines=1, tp=1):
    return paired(payload(row(pool, gpu, engines, tp))).allocation[0]


def test_a_pair_shares_the_cores_of_one_engine():
    slots = engine_slots(payload(pair(engines=1), row("other", "cpu-1core", engines=1)), MIXED)
    assert [(s.name, s.side, s.place.cores) for s in slots] == [
        ("engine-0-prefill", Side.PREFILL, (3,)),
        ("engine-0-decode", Side.DECODE, (2,)),
        ("engine-1", None, (4,)),
    ]


def in_mode_pd(phases):
    planned = row("chat", "cpu-2core", engines=1)
    update = {"mode": "pd", "point": replace(planned.point, mode=Mode.PD), "phases": phases}
    return planned.model_copy(update=update)


def test_mode_pd_with_phases_is_one_engine_and_a_pair_where_pairs_are_wanted():
    phased = in_mode_pd(Phases(PhaseOptions(15.0)))
    assert [(s.name, s.side) for s in engine_slots(payload(phased), MIXED)] == [("engine-0", None)]
    plan = paired(payload(phased))
    assert [slot.side for slot in engine_slots(plan, MIXED)] == [Side.PREFILL, Side.DECODE]
    assert plan.allocation == [in_mode_pd(None)] == paired(plan).allocation


def test_other_targets_refuse_phases():
    phased = in_mode_pd(Phases(PhaseOptions(15.0))).model_copy(update={"gpu": "L4"})
    with pytest.raises(InputError, match="mode 'pd'") as caught:
        pools(payload(phased))
    assert "deploy to `local`" in caught.value.fix


def test_several_pairs_have_a_balancer_for_each_side():
    rows = slot_states(engine_slots(payload(pair(engines=2)), MIXED))
    state = State(name="x", plan_digest="", target="local", phase=Phase.PLANNED, slots=rows)
    assert [slot.slot for slot in rows[4:]] == ["pool-chat", "prefill-chat", "router", "supervisor"]
    assert state.pool_urls() == {"chat": local_url(state.slot("pool-chat").port)}
    assert state.prefill_urls() == {"chat": local_url(state.slot("prefill-chat").port)}


def test_one_pair_needs_a_router_and_no_balancer():
    rows = slot_states(engine_slots(payload(pair()), MIXED))
    state = State(name="x", plan_digest="", target="local", phase=Phase.PLANNED, slots=rows)
    assert [slot.slot for slot in rows[2:]] == ["router", "supervisor"]
    assert state.pool_urls() == {"chat": local_url(state.slot("engine-0-decode").port)}
    assert state.prefill_urls() == {"chat": local_url(state.slot("engine-0-prefill").port)}


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (pair(gpu="cpu-1core"), "each of the two needs 1"),
        (pair(gpu="L4"), "two engines on one GPU"),
    ],
)
def test_a_pair_in_a_place_that_cannot_be_shared_is_refused(made, why):
    with pytest.raises(InputError, match=why):
        engine_slots(payload(made), MIXED)


def test_an_engine_in_a_mode_that_nothing_starts_is_refused():
    offloading = row().model_copy(update={"mode": "offload"})
    with pytest.raises(InputError, match="mode 'offload'"):
        paired(payload(offloading))
