"""The time of an optimizer step: its work, its bounds, and that better hardware is never slower."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from latency.trainings import FULL, LAMDA, LORA, VARIANTS, activations, training

from hgpu.catalog.gpus import resolve_gpu
from hgpu.core.gpu import DType, GpuType, MemoryTier
from hgpu.core.training import Offload, Sharding, Variant
from hgpu.latency.training_memory import host_tensors
from hgpu.latency.training_time import Hardware, hardware_of, optimizer_step, pass_flops
from hgpu.solvers.tier_placement import latency_first

H100 = resolve_gpu("H100-SXM")


def hardware(gpu: GpuType = H100, machines: int = 1, network: float | None = None) -> Hardware:
    return hardware_of(gpu, DType.BF16, machines, network)


def test_a_full_fine_tune_works_6_flops_a_parameter_and_token() -> None:
    asked = training(1024)
    model = asked.model
    tokens = 1024 * model.active_params
    attention = model.attention_flops_per_pair * 1024 * 1025 / 2
    assert pass_flops(asked, FULL, backward=False) == 2 * tokens + attention
    assert pass_flops(asked, FULL, backward=True) == 4 * tokens + 2 * attention
    again = pass_flops(asked, replace(FULL, checkpointing=True), backward=True)
    assert again == 6 * tokens + 3 * attention
    lora = pass_flops(asked, LORA, backward=True)
    assert 2 * tokens < lora < 2.1 * tokens + 2 * attention  # no gradients of frozen weights


def test_a_step_of_many_tokens_is_bound_by_compute() -> None:
    asked = training(4096)
    step = optimizer_step(asked, FULL, activations(asked, FULL), hardware(), accumulation=8)
    assert step.bound == "compute"
    assert step.total_s == pytest.approx(sum(step.seconds_by_bound.values()))


def test_an_offloaded_step_of_few_tokens_is_bound_by_the_host() -> None:
    asked = training(16)
    variant = replace(FULL, offload=Offload.ZERO3, checkpointing=True)
    tiers = [MemoryTier("DRAM", 2**40, 2e11, 2e11)]
    placement = latency_first(host_tensors(asked, variant), tiers)
    step = optimizer_step(asked, variant, activations(asked, variant), hardware(), 1, placement)
    assert "host link" in step.seconds_by_bound and "compute" not in step.seconds_by_bound
    optimizer_s = step.seconds_by_bound["optimizer on DRAM"]
    assert optimizer_s == pytest.approx(30 * asked.model.total_params / 2e11)
    slower = [replace(tiers[0], host_bandwidth_bytes_per_s=5e10)]
    four_times = latency_first(host_tensors(asked, variant), slower)
    again = optimizer_step(asked, variant, activations(asked, variant), hardware(), 1, four_times)
    assert again.seconds_by_bound["optimizer on DRAM"] == pytest.approx(4 * optimizer_s)


def test_copies_sum_their_gradients_once_a_step_and_zero3_moves_weights_each_pass() -> None:
    asked = training(16)
    copies = replace(FULL, dp=8)
    plain = optimizer_step(asked, copies, activations(asked, copies), hardware(), 1)
    summed = 2 * 7 / 8 * 4 * asked.model.total_params / hardware().peer_bytes_per_s
    assert plain.seconds_by_bound["peer link"] == pytest.approx(summed)
    parts = replace(copies, sharding=Sharding.ZERO3)
    moved = [
        optimizer_step(asked, parts, activations(asked, parts), hardware(), n).seconds_by_bound["peer link"]
        for n in (1, 2)
    ]
    assert moved[1] == pytest.approx(2 * moved[0])


def test_a_slow_network_binds_copies_on_several_machines() -> None:
    asked = training(256)
    copies = replace(FULL, dp=16)
    near = optimizer_step(asked, copies, activations(asked, copies), hardware(machines=2, network=1e12), 1)
    far = optimizer_step(asked, copies, activations(asked, copies), hardware(machines=2, network=1e9), 1)
    assert far.bound == "network" and far.total_s > near.total_s


@pytest.mark.parametrize("sharding", Sharding)
def test_the_parts_of_a_copy_share_the_network_of_their_machine(sharding: Sharding) -> None:
    def network_s(tp: int) -> float:
        variant = replace(FULL, tp=tp, dp=16 // tp * 8, sharding=sharding)
        asked, far = training(16), hardware(machines=16, network=1e8)
        return optimizer_step(asked, variant, activations(asked, variant), far, 1).seconds_by_bound["network"]

    # All weights or gradients pass each machine's network once round, whether in one ring or in eight.
    shares = [(tp, (128 // tp - 1) / (128 // tp)) for tp in (1, 2, 8)]
    seconds = [network_s(tp) / share for tp, share in shares]
    assert seconds == pytest.approx([seconds[0]] * 3, rel=0.02)


def test_lamda_computes_less_than_lora_as_it_trains_less() -> None:
    asked = training(1024)
    assert pass_flops(asked, LAMDA, backward=True) < pass_flops(asked, LORA, backward=True)


@given(VARIANTS.filter(lambda v: v.offload is Offload.NONE), st.integers(1, 8), st.floats(1, 4))
def test_better_hardware_is_never_slower(variant: Variant, accumulation: int, factor: float) -> None:
    asked = training(512)
    faster = replace(
        H100,
        flops_per_s={dtype: rate * factor for dtype, rate in H100.flops_per_s.items()},
        memory_bandwidth_bytes_per_s=H100.memory_bandwidth_bytes_per_s * factor,
        peer_link_bytes_per_s=H100.peer_link_bytes_per_s * factor,
    )
    times = [
        optimizer_step(asked, variant, activations(asked, variant), hardware(gpu), accumulation).total_s
        for gpu in (H100, faster)
    ]
    assert times[1] <= times[0] * (1 + 1e-9)
