"""A model trains the same, to the last bit, with its optimizer in placed memory. On real torch."""

from collections.abc import Iterator
from typing import Any

import pytest

from hgpu.core.errors import EngineError, HgpuError, InputError
from hgpu.core.gpu import MemoryTier
from hgpu.core.training_tensors import TensorName, TrainingShape, offloaded_tensors
from hgpu.profilers.numa import Policy
from hgpu.profilers.numa_errors import usable_nodes
from hgpu.solvers.tier_placement import latency_first
from hgpu.tuning.tiered_adam import TieredAdam, shares_of, tiered_adamw
from hgpu.tuning.tiered_memory import allocate

pytestmark = pytest.mark.vllm
STEPS = 12
OPTIONS = {"lr": 3e-3, "weight_decay": 0.1, "betas": (0.9, 0.95)}


def here() -> int:
    return min(usable_nodes())


def everywhere() -> dict[TensorName, list[tuple[int, float]]]:
    return {name: [(here(), 1.0)] for name in TensorName}


def small_model() -> Any:
    """A transformer layer with an embedding and a head, made the same every time."""
    import torch

    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Embedding(97, 48),
        torch.nn.TransformerEncoderLayer(48, 4, 96, dropout=0.0, batch_first=True),
        torch.nn.Linear(48, 97),
    )


def batches(count: int = STEPS) -> Iterator[tuple[Any, Any]]:
    import torch

    made = torch.Generator().manual_seed(1)
    for _ in range(count):
        tokens = torch.randint(0, 97, (4, 17), generator=made)
        yield tokens[:, :-1], tokens[:, 1:]


def losses(model: Any, optimizer: Any, micro_batches: int = 1) -> list[float]:
    import torch

    found = []
    for tokens, targets in batches():
        for rows, aims in zip(tokens.chunk(micro_batches), targets.chunk(micro_batches), strict=True):
            loss = torch.nn.functional.cross_entropy(model(rows).float().flatten(0, 1), aims.flatten())
            loss.backward()
            found.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
    return found


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("fused", [True, False])
def test_losses_and_weights_equal_those_of_torch_adamw(fused: bool, micro_batches: int) -> None:
    import torch

    plain, tiered = small_model(), small_model()
    made = tiered_adamw(tiered.parameters(), everywhere(), fused=fused, **OPTIONS)
    expected = losses(plain, torch.optim.AdamW(plain.parameters(), fused=fused, **OPTIONS), micro_batches)
    assert losses(tiered, made.optimizer, micro_batches) == expected
    assert expected[-1] < expected[0]
    for one, other in zip(plain.parameters(), tiered.parameters(), strict=True):
        assert torch.equal(one, other)


def test_all_that_the_optimizer_works_on_lies_in_the_placed_memory() -> None:
    model = small_model()
    made = tiered_adamw(model.parameters(), everywhere(), **OPTIONS)
    losses(model, made.optimizer)
    made.verify()
    ranges = {name: bounds(memory.tensor(dtype_of(name))) for name, memory in made.memory.items()}
    assert set(ranges) == set(TensorName) - {
        TensorName.BF16_WEIGHTS,
        TensorName.BF16_GRADIENTS,
        TensorName.ACTIVATIONS,
    }
    for (master, state), parameter in zip(made.optimizer.state.items(), model.parameters(), strict=True):
        assert inside(master, ranges[TensorName.FP32_MASTER])
        assert parameter.data_ptr() == master.data_ptr() and parameter.grad is None
        assert inside(state["exp_avg"], ranges[TensorName.MOMENTUM])
        assert inside(state["exp_avg_sq"], ranges[TensorName.VARIANCE])
    tokens, _ = next(batches(1))
    model(tokens).sum().backward()
    assert all(inside(row.grad, ranges[TensorName.FP32_GRADIENTS]) for row in made.optimizer.state)


def test_a_checkpoint_is_loaded_into_the_placed_memory() -> None:
    import copy

    first, second = small_model(), small_model()
    one, two = (tiered_adamw(model.parameters(), everywhere(), **OPTIONS) for model in (first, second))
    losses(first, one.optimizer)
    second.load_state_dict(first.state_dict())
    two.optimizer.load_state_dict(copy.deepcopy(one.optimizer.state_dict()))
    assert losses(second, two.optimizer) == losses(first, one.optimizer)
    placed = bounds(two.memory[TensorName.VARIANCE].tensor(dtype_of(TensorName.VARIANCE)))
    assert all(inside(state["exp_avg_sq"], placed) for state in two.optimizer.state.values())


def dtype_of(name: TensorName) -> Any:
    import torch

    return torch.bfloat16 if name is TensorName.BF16_WEIGHTS else torch.float32


def bounds(tensor: Any) -> tuple[int, int]:
    return tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes


def inside(tensor: Any, outer: tuple[int, int]) -> bool:
    start, end = bounds(tensor)
    return outer[0] <= start and end <= outer[1]


def test_a_bf16_model_trains_as_one_with_fp32_masters_written_by_hand() -> None:
    import torch

    plain, tiered = small_model().bfloat16(), small_model().bfloat16()
    masters = [torch.nn.Parameter(parameter.detach().float()) for parameter in plain.parameters()]
    by_hand = torch.optim.AdamW(masters, fused=True, **OPTIONS)

    def step(*_: Any) -> None:
        for master, parameter in zip(masters, plain.parameters(), strict=True):
            master.grad, parameter.grad = parameter.grad.float(), None

    def send(*_: Any) -> None:
        for master, parameter in zip(masters, plain.parameters(), strict=True):
            parameter.data.copy_(master.data)

    by_hand.register_step_pre_hook(step)
    by_hand.register_step_post_hook(send)
    made = tiered_adamw(tiered.parameters(), everywhere(), fused=True, **OPTIONS)
    assert losses(tiered, made.optimizer) == losses(plain, by_hand)
    assert made.memory[TensorName.BF16_WEIGHTS].residency().keys() == {here()}


def test_a_half_precision_model_loses_nothing_by_a_copy_in_another_precision() -> None:
    """fp16 isn't sent by way of bf16, which has fewer digits."""
    import torch

    model = torch.nn.Linear(8, 8).half()
    made = tiered_adamw(model.parameters(), everywhere(), **OPTIONS)
    assert TensorName.BF16_WEIGHTS not in made.memory
    model(torch.ones(2, 8, dtype=torch.float16)).sum().backward()
    made.optimizer.step()
    for parameter, master in zip(model.parameters(), made.optimizer.state, strict=True):
        assert torch.equal(parameter, master.half()) and not torch.equal(
            parameter.float(), master.bfloat16().float()
        )


def test_a_solved_placement_is_what_is_allocated() -> None:
    """All tensors fit in the only tier that is real here; a second tier would have to be a second node."""
    shape = TrainingShape(10**6, layers=1, hidden_size=48, batch=4, context_tokens=16)
    tiers = [MemoryTier("dram", 2**30, 1e10, 1e10)]
    shares = shares_of(latency_first(offloaded_tensors(shape), tiers), [here()])
    made = tiered_adamw(small_model().parameters(), shares, **OPTIONS)
    made.verify()
    assert isinstance(made, TieredAdam)
    with pytest.raises(InputError, match="1 tiers can't be 2 memory nodes"):
        shares_of(latency_first(offloaded_tensors(shape), tiers), [0, 1])


def test_what_cannot_be_placed_is_told_before_training() -> None:
    model = small_model()
    half = [(here(), 0.5), (1000, 0.5)]
    with pytest.raises(InputError, match="can't be placed on node"):
        tiered_adamw(model.parameters(), {**everywhere(), TensorName.VARIANCE: half}, **OPTIONS)
    with pytest.raises(InputError, match="doesn't say where variance goes"):
        tiered_adamw(model.parameters(), {TensorName.MOMENTUM: [(here(), 1.0)]}, **OPTIONS)
    with pytest.raises(InputError, match="nothing to train"):
        tiered_adamw([], everywhere(), **OPTIONS)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_tensor_over_placed_memory_keeps_it_alive_and_is_not_a_copy() -> None:
    import torch

    memory = allocate(2**20, [here()], Policy.INTERLEAVE)
    tensor = memory.tensor(torch.float32)
    tensor.fill_(1.5)
    assert memory.tensor(torch.float32, count=4, offset_bytes=8).tolist() == [1.5] * 4
    del memory
    assert tensor.sum().item() == 1.5 * 2**18


def test_pinning_without_a_gpu_is_an_error() -> None:
    import torch

    if torch.cuda.is_available():
        allocate(2**20, [here()]).pin()
        return
    with pytest.raises(EngineError, match="can't be pinned"):
        allocate(2**20, [here()]).pin()
    assert issubclass(EngineError, HgpuError)


@pytest.mark.skipif(len(usable_nodes()) < 2, reason="this machine has one memory node")
def test_losses_stay_the_same_with_every_tensor_on_two_nodes() -> None:
    import torch

    first, second, *_ = sorted(usable_nodes())
    parts = zip(TensorName, (0.1, 0.3, 0.5, 0.7, 0.9, 0.4, 0.6), strict=True)
    shares = {name: [(first, part), (second, 1 - part)] for name, part in parts}
    plain, tiered = small_model(), small_model()
    made = tiered_adamw(tiered.parameters(), shares, fused=True, **OPTIONS)
    expected = losses(plain, torch.optim.AdamW(plain.parameters(), fused=True, **OPTIONS))
    assert losses(tiered, made.optimizer) == expected
    made.verify()
    assert all(set(memory.residency()) == {first, second} for memory in made.memory.values())
