"""What expert caches load, hold and cost: from replays of small traces, by hand and by brute force."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hgpu.artifacts.manifest import Environment
from hgpu.artifacts.payloads.routing import TRACE_FILE, RoutingPayload
from hgpu.artifacts.resolve import entries
from hgpu.artifacts.store import Draft, load, save
from hgpu.catalog.gpus import resolve_gpu
from hgpu.catalog.models import load_model
from hgpu.core.errors import InputError
from hgpu.core.experts import CopySpeed, ExpertCache, ExpertPolicy, Link, Prefetch
from hgpu.core.gpu import GpuType
from hgpu.core.model import ModelSpec
from hgpu.core.operating_point import EngineOptions, Mode, OperatingPoint
from hgpu.latency.expert_loads import Routing, routing_of, sizes_up_to, step_loads, uniform_routing
from hgpu.latency.expert_slots import divided, layer_slots
from hgpu.latency.offload import chosen_cache, copies_of, routing_for
from hgpu.latency.rebatch import by_sequence, halves, rebatched
from hgpu.latency.routing import RoutingTrace
from hgpu.latency.routing_source import named_routing, routing_behind
from hgpu.latency.select import estimated, latency_draft
from hgpu.profilers.estimate import estimate
from hgpu.profilers.host_link import HostLink
from hgpu.profilers.routing_record import RoutingRecord

QWEN = load_model("Qwen/Qwen3-30B-A3B")
SMALL = replace(QWEN, moe_layers=3, experts=16, experts_per_token=2)  # as many bytes an expert
L4 = resolve_gpu("L4")


def traced(tokens: int = 600, layers: int = 3, skews: tuple[float, ...] = (0.5, 1.5, 3.0)) -> RoutingTrace:
    """A made trace of 16 experts, 2 a token, more skewed in later layers; they follow from the token id."""
    rng = np.random.default_rng(0)
    ids = np.empty((tokens, layers, 2), np.int32)
    names = rng.integers(0, 40, tokens)
    for layer in range(layers):
        keys = -skews[layer] * np.log(np.arange(1, 17)) + rng.gumbel(size=(40, 16))
        own = np.argsort(-keys, axis=1)[:, :2]
        noise = np.argsort(-(keys[names] + 0.7 * rng.gumbel(size=(tokens, 16))), axis=1)[:, :2]
        ids[:, layer] = np.where(rng.random((tokens, 1)) < 0.8, own[names], noise)
    gate = np.where(rng.random(ids.shape) < 0.9, ids, -1)
    gate[:, 0] = -1
    prefill = np.arange(tokens) % 30 < 10
    return RoutingTrace(16, ids, np.arange(tokens), names, prefill, gate, np.arange(tokens) // 30)


ROUTING = routing_of(traced(), "a made trace")


def offloading(
    fraction: float = 0.25,
    policy: ExpertPolicy = ExpertPolicy.PINNED_LFU,
    prefetch: Prefetch = Prefetch.NONE,
    gpu: str = "L4",
    **engine: int,
) -> OperatingPoint:
    options = EngineOptions(**{"max_num_batched_tokens": 64, "max_num_seqs": 4, **engine})
    cache = ExpertCache(fraction, policy, prefetch)
    return OperatingPoint(gpu, mode=Mode.OFFLOAD, engine=options, experts=cache)


@settings(max_examples=60)
@given(st.data())
def test_slots_are_divided_as_well_as_trying_all_divisions_does(data: st.DataObject) -> None:
    layers, choices = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    load = st.integers(0, 20)
    curves = np.array([data.draw(st.lists(load, min_size=choices, max_size=choices)) for _ in range(layers)])
    least = data.draw(st.integers(1, 3))
    total = data.draw(st.integers(layers * least, layers * (least + choices - 1)))
    slots = divided(curves.astype(float), least, total)
    assert sum(slots) == total and len(slots) == layers
    made = sum(curves[layer, count - least] for layer, count in enumerate(slots))
    every = product(range(choices), repeat=layers)
    fitting = [picks for picks in every if sum(picks) + layers * least == total]
    assert made == min(sum(curves[layer, pick] for layer, pick in enumerate(picks)) for picks in fitting)


def test_no_division_makes_up_more_than_all_or_less_than_the_least() -> None:
    for total in (3, 9):
        with pytest.raises(InputError, match="can't be divided"):
            divided(np.zeros((2, 3)), 2, total)


def test_layers_that_load_more_without_slots_get_more_of_them() -> None:
    slots = layer_slots(ROUTING, ExpertCache(0.5, ExpertPolicy.LFU), 4)
    assert sum(slots) == 24 and slots[0] > slots[2]
    cache = ExpertCache(0.5, ExpertPolicy.LFU)
    even, uneven = (step_loads(ROUTING, cache, each, [2], 4).exposed.sum() for each in ((8,) * 3, slots))
    assert uneven < even


def test_a_batch_holds_a_token_of_each_of_some_stretches_of_sequences() -> None:
    ids = np.zeros((6, 1, 1), np.int32)
    order, steps = np.array([0, 1, 0, 1, 0, 1]), np.array([0, 0, 1, 1, 2, 2])
    trace = RoutingTrace(2, ids, steps, np.array([10, 20, 11, 21, 12, 22]), np.zeros(6, bool), None, order)
    together = by_sequence(trace)
    assert together.tokens.tolist() == [10, 11, 12, 20, 21, 22]
    assert by_sequence(replace(trace, requests=None)).tokens.tolist() == together.tokens.tolist()
    assert rebatched(together, 2, 9, decodes=True).tokens.tolist() == [10, 20, 11, 21, 12, 22]
    assert rebatched(together, 3, 9, decodes=False).tokens.tolist() == [10, 11, 12, 20, 21, 22]
    assert rebatched(together, 2, 1, decodes=True).tokens.tolist() == [10, 20]
    with pytest.raises(InputError, match="none of 7 in a step"):
        rebatched(together, 7, 9, decodes=True)


def test_what_is_learnt_from_is_not_played() -> None:
    learnt, played = halves(traced())
    assert not set(learnt.requests.tolist()) & set(played.requests.tolist())
    alone = replace(traced(), requests=None)
    learnt, played = halves(alone)
    assert learnt.steps.max() < played.steps.min()


def test_on_demand_loads_what_each_token_needs_and_a_whole_cache_nothing() -> None:
    demand = step_loads(ROUTING, ExpertCache(0.25, ExpertPolicy.ON_DEMAND), [4] * 3, [1], 1)
    assert demand.exposed.tolist() == [[2.0, 2.0, 2.0]] and not demand.here.any() and not demand.ahead.any()
    whole = step_loads(ROUTING, ExpertCache(1.0, ExpertPolicy.LRU), [16] * 3, [4], 4)
    assert whole.exposed.max() < 0.1  # an expert that the trace hardly ever takes may come late


def test_prompts_longer_than_the_trace_load_all_experts_and_none_are_priced_in_groups() -> None:
    cache = ExpertCache(0.25, ExpertPolicy.LRU)
    loads = step_loads(ROUTING, cache, [4] * 3, [4, 64, 4096], 4)
    assert loads.tokens == (4, 64, 4096)
    assert loads.exposed[1].tolist()[-1] < 16 and (loads.exposed[2] == 16).all()
    with pytest.raises(InputError, match="none of 4096 in a step"):
        step_loads(ROUTING, replace(cache, wide=False), [4] * 3, [4, 4096], 4)


def test_a_step_waits_for_its_copies_and_one_on_demand_for_all_of_them() -> None:
    point, link = offloading(policy=ExpertPolicy.ON_DEMAND), HostLink()
    copies = copies_of(SMALL, L4, point, ROUTING)
    assert copies.tokens == tuple(map(float, sizes_up_to(4, 64))) == (1, 2, 4, 8, 16, 32, 64)
    copy_s = SMALL.expert_bytes / 25e9 + 1e-5
    assert copy_s == pytest.approx(link.copy_s(SMALL, L4))
    assert copies.step_s(1.0, 0.01) == pytest.approx(0.01 + 3 * 2 * copy_s)
    assert list(copies.exposed_s) == sorted(copies.exposed_s)
    assert copies_of(SMALL, L4, offloading(), ROUTING).exposed_s[0] < copies.exposed_s[0]


def test_a_measured_link_counts_on_its_gpu_type_only() -> None:
    measured = replace(ROUTING, link=("L4", 12.5e9))
    slow, assumed = (copies_of(SMALL, L4, offloading(), one).exposed_s[0] for one in (measured, ROUTING))
    assert slow == pytest.approx(2 * assumed, rel=0.06)
    elsewhere = offloading(gpu="A10G")
    a10g = resolve_gpu("A10G")
    assert copies_of(SMALL, a10g, elsewhere, measured) == copies_of(SMALL, a10g, elsewhere, ROUTING)


def test_uniform_routing_hits_what_part_of_the_experts_is_there() -> None:
    loads = step_loads(uniform_routing(16, 2), ExpertCache(0.5, ExpertPolicy.STATIC), [8], [1], 1)
    pinned = 8 - 2
    assert loads.exposed[0, 0] == pytest.approx(2 * (1 - pinned / 16), rel=0.1)


def test_routing_of_another_model_is_refused_and_none_is_uniform() -> None:
    assert routing_for(SMALL, ROUTING) is ROUTING
    assert routing_for(SMALL, None).uniform
    with pytest.raises(InputError, match="it has 3 layers with 16 experts"):
        routing_for(QWEN, ROUTING)
    divided_for = replace(offloading().experts, layer_slots=(4, 4, 4))
    with pytest.raises(InputError, match="made out for a routing"):
        copies_of(SMALL, L4, replace(offloading(), experts=divided_for), routing_for(SMALL, None))


def linked(times: float) -> tuple[GpuType, ModelSpec]:
    """A GPU with another host link, and a model with little to compute."""
    return replace(L4, host_link_bytes_per_s=times * L4.host_link_bytes_per_s), SMALL


def test_prefetch_is_chosen_where_its_copies_hide_and_not_where_the_link_is_the_bottleneck() -> None:
    chosen = {}
    for times in (0.0005, 20.0):
        gpu, model = linked(times)
        made = chosen_cache(model, gpu, offloading(0.5, ExpertPolicy.LFU, max_num_seqs=1), ROUTING)
        assert set(made.step_s) == {Prefetch.NONE, Prefetch.TOKEN, Prefetch.NEXT_GATE}
        assert made.point.experts is not None
        chosen[times] = made.point.experts.prefetch
        assert made.step_s[chosen[times]] == min(made.step_s.values())
        assert sum(made.point.experts.slots_of(16, 2, 3)) == 24
        print(made.step_s)
    assert chosen[0.0005] is Prefetch.NONE and chosen[20.0] is not Prefetch.NONE


def test_memory_holds_the_rest_the_slots_and_the_wide_buffer() -> None:
    quarter = ExpertCache(0.25)
    slots = 48 * 32 + 128
    rest = QWEN.weight_bytes - QWEN.all_expert_bytes
    assert QWEN.resident_bytes(quarter) == pytest.approx(rest + slots * QWEN.expert_bytes)
    narrow = replace(quarter, wide=False)
    assert QWEN.resident_bytes(quarter) - QWEN.resident_bytes(narrow) == pytest.approx(
        128 * QWEN.expert_bytes
    )
    assert QWEN.resident_bytes(ExpertCache(1.0)) == QWEN.resident_bytes(None) == QWEN.weight_bytes
    point = offloading(max_num_batched_tokens=2048)
    result = estimate(QWEN, L4, point)
    room = 0.9 * L4.memory_bytes - result.assumptions["workspace_bytes"] - QWEN.resident_bytes(point.experts)
    assert result.kv_capacity_tokens == int(room // QWEN.kv_bytes(1))
    assert result.assumptions["host_link"] == pytest.approx(25 / 31.5)


def test_traces_without_token_ids_or_a_gate_offer_no_prefetch() -> None:
    plain = routing_of(replace(traced(), tokens=np.zeros(600, np.int64), next_gate=None), "plain")
    assert isinstance(plain, Routing) and plain.prefetches == (Prefetch.NONE,)
    assert ROUTING.prefetches == (Prefetch.NONE, Prefetch.TOKEN, Prefetch.NEXT_GATE)


def recorded(link: Link) -> Draft[RoutingPayload]:
    """The made trace as an artifact; what it says of itself beyond its shape is another's."""
    trace, golden = traced(), load(Path(__file__).parents[1] / "artifacts" / "golden" / "routing.v1")
    shape = {"layers": 3, "experts": 16, "per_token": 2, "model": SMALL}
    copies = CopySpeed(link, int(SMALL.expert_bytes), 20e9, 19e9, 21e9)
    assert trace.requests is not None
    positions = np.arange(600) % 30
    record = RoutingRecord(
        trace.ids, trace.steps, trace.requests, positions, trace.tokens, trace.prefill, trace.next_gate
    )
    payload = golden.payload.model_copy(update=shape | {"copies": copies})
    files = {TRACE_FILE: record.to_npz()}
    return Draft("routing", "made", payload, environment=Environment(gpu="L4"), files=files)


def test_a_named_routing_is_replayed_and_stands_among_the_inputs(tmp_path: Path) -> None:
    saved = save(tmp_path, recorded(Link.PINNED))
    routing = named_routing(tmp_path, saved.digest[:8])
    assert routing is not None and named_routing(tmp_path, None) is None
    assert [row.digest for row in routing.inputs] == [saved.digest]
    assert routing.link == ("L4", 20e9)
    on_cpu = named_routing(tmp_path, str(save(tmp_path, recorded(Link.HOST)).path))
    assert on_cpu is not None and on_cpu.link is None  # a CPU has no link to a device
    model = SMALL
    point = offloading(0.5, max_num_seqs=4, max_num_batched_tokens=512)
    made = chosen_cache(model, L4, point, routing).point
    fitted = estimated(tmp_path, model, made, routing)
    assert {row.kind for row in fitted.manifest.inputs} == {"profile", "routing"}
    assert fitted.payload.latency.step.copies == copies_of(model, L4, made, routing)
    (profile,) = (load(entry.path) for entry in entries(tmp_path, "profile"))
    again = latency_draft(profile, routing_behind(tmp_path, profile))
    assert again.payload == fitted.payload
