"""AdamW whose master weights, moments and gradients lie where a placement puts them.

torch's own AdamW does the arithmetic, on tensors over placed memory: its parameters are fp32 masters, its
state is there before its first step. A gradient moves into its placed buffer as soon as the backward pass has
it, and the model's own is freed. An fp32 model on the CPU shares the masters' memory; any other gets a copy
after a step, a bf16 one by way of the placed bf16 weights.

    made = tiered_adamw(model.parameters(), shares_of(placement, nodes=[0, 2]), lr=1e-4, fused=True)
    loss.backward(); made.optimizer.step(); made.optimizer.zero_grad()

Clip norms over `optimizer.param_groups`, which hold the masters: the model's gradients are gone by then. A
checkpoint of a bf16 model needs the masters too. Activations and bf16 gradients stay where torch puts them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hgpu.core.errors import InputError
from hgpu.core.placement import TierPlacement
from hgpu.core.training_tensors import TensorName
from hgpu.tuning.tiered_memory import TieredMemory, allocate_shares

ALIGNED = 16  # elements: every parameter starts on a cache line
FP32_TENSORS = (
    TensorName.MOMENTUM,
    TensorName.VARIANCE,
    TensorName.FP32_GRADIENTS,
    TensorName.FP32_MASTER,
)
Shares = Mapping[TensorName, Sequence[tuple[int, float]]]


@dataclass(frozen=True, slots=True)
class TieredAdam:
    """A torch AdamW and the placed memory that it works on, by tensor."""

    optimizer: Any
    memory: Mapping[TensorName, TieredMemory]

    def verify(self) -> None:
        """Raise HgpuError where a page isn't where the placement puts it."""
        for memory in self.memory.values():
            memory.verify()

    def pin(self) -> None:
        """Pin what a GPU copies to and from. Never run by us on a GPU yet; raises as `TieredMemory.pin`."""
        weights = {TensorName.BF16_WEIGHTS, TensorName.FP32_MASTER} & self.memory.keys()
        for name in sorted({TensorName.FP32_GRADIENTS, min(weights)}):
            self.memory[name].pin()


def shares_of(placement: TierPlacement, nodes: Sequence[int]) -> dict[TensorName, list[tuple[int, float]]]:
    """Return each tensor's part on each NUMA node, for tiers that stand for `nodes` in their order.

    Raises InputError where there aren't as many nodes as tiers.
    """
    if len(nodes) != len(placement.tiers):
        raise InputError(
            f"{len(placement.tiers)} tiers can't be {len(nodes)} memory nodes",
            "each tier is one node",
            "name a node for each of " + ", ".join(tier.name for tier in placement.tiers),
        )
    return {
        row.tensor.name: [(node, row.share(tier)) for tier, node in enumerate(nodes)]
        for row in placement.placed
    }


def tiered_adamw(parameters: Iterable[Any], shares: Shares, **options: Any) -> TieredAdam:
    """Return torch's AdamW over placed memory; `options` are its own, such as `lr` and `fused`.

    Parameters are taken over as they are: their values become the masters'. Raises InputError where there are
    none or a tensor has no share, and as `allocate_shares` where memory can't be placed.
    """
    import torch

    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not trained:
        raise InputError("there is nothing to train", "no parameter requires a gradient")
    halves = any(parameter.dtype == torch.bfloat16 for parameter in trained)
    wanted = (*FP32_TENSORS, *((TensorName.BF16_WEIGHTS,) if halves else ()))
    memory = {name: _placed(name, sum(map(_slots, trained)), shares) for name in wanted}
    views = {name: _views(memory[name], _dtype(name), trained) for name in wanted}
    rows = zip(trained, views[TensorName.FP32_MASTER], views[TensorName.FP32_GRADIENTS], strict=True)
    masters = [_take_over(*row) for row in rows]
    optimizer = torch.optim.AdamW(masters, **options)
    _place_state(optimizer, masters, views[TensorName.MOMENTUM], views[TensorName.VARIANCE])
    _copy_back(optimizer, trained, masters, views.get(TensorName.BF16_WEIGHTS, masters))
    return TieredAdam(optimizer, memory)


def _slots(parameter: Any) -> int:
    """Return the elements that a parameter takes in a flat buffer."""
    return int(-(-parameter.numel() // ALIGNED) * ALIGNED)


def _placed(name: TensorName, elements: int, shares: Shares) -> TieredMemory:
    if name not in shares:
        raise InputError(
            f"the placement doesn't say where {name} goes",
            f"it has {', '.join(shares) or 'nothing'}",
            "give every tensor that the optimizer uses a share of a node",
        )
    total = elements * _dtype(name).itemsize
    parts = [(node, round(total * share)) for node, share in shares[name]]
    node, part = parts[-1]
    parts[-1] = (node, part + total - sum(size for _, size in parts))
    return allocate_shares(parts)


def _views(memory: TieredMemory, dtype: Any, parameters: Sequence[Any]) -> list[Any]:
    """Return a tensor a parameter, in its shape, one after the other."""
    parts = memory.tensor(dtype, sum(map(_slots, parameters))).split([_slots(one) for one in parameters])
    return [part[: one.numel()].view(one.shape) for part, one in zip(parts, parameters, strict=True)]


def _take_over(parameter: Any, master: Any, gradient: Any) -> Any:
    """Make `master` the fp32 parameter behind a model's own, and `gradient` where its gradients go."""
    import torch

    with torch.no_grad():
        master.copy_(parameter)
    master = torch.nn.Parameter(master)
    if not _is_copied(parameter):
        parameter.data = master.data

    def collect(parameter: Any) -> None:
        if master.grad is None:
            gradient.copy_(parameter.grad)
            master.grad = gradient
        else:
            gradient.add_(parameter.grad)
        parameter.grad = None

    parameter.register_post_accumulate_grad_hook(collect)
    return master


def _place_state(
    optimizer: Any, masters: Sequence[Any], momenta: Sequence[Any], variances: Sequence[Any]
) -> None:
    """Give the optimizer its state before the first step, and again after a checkpoint is loaded."""
    import torch

    def place(step: Any, master: Any, momentum: Any, variance: Any) -> None:
        optimizer.state[master] = {"step": step, "exp_avg": momentum, "exp_avg_sq": variance}

    def take_loaded(_: Any) -> None:
        for master, momentum, variance in zip(masters, momenta, variances, strict=True):
            loaded = optimizer.state[master]
            momentum.copy_(loaded["exp_avg"])
            variance.copy_(loaded["exp_avg_sq"])
            place(loaded["step"], master, momentum, variance)

    for row in zip(masters, momenta, variances, strict=True):
        place(torch.tensor(0.0), *row)
    optimizer.register_load_state_dict_post_hook(take_loaded)


def _copy_back(
    optimizer: Any, parameters: Sequence[Any], masters: Sequence[Any], copies: Sequence[Any]
) -> None:
    """After every step, send the masters to what doesn't share their memory; bf16 by way of its copy."""
    import torch

    rows = [row for row in zip(parameters, masters, copies, strict=True) if _is_copied(row[0])]

    def send(*_: Any) -> None:
        with torch.no_grad():
            for parameter, master, weights in rows:
                if parameter.dtype == torch.bfloat16:
                    weights.copy_(master)
                    parameter.copy_(weights, non_blocking=True)
                else:
                    parameter.copy_(master, non_blocking=True)

    optimizer.register_step_post_hook(send)


def _is_copied(parameter: Any) -> bool:
    """Tell whether a model's parameter can't share its master's memory."""
    import torch

    return bool(parameter.dtype != torch.float32 or parameter.device.type != "cpu")


def _dtype(name: TensorName) -> Any:
    import torch

    return torch.bfloat16 if name in (TensorName.BF16_WEIGHTS, TensorName.BF16_GRADIENTS) else torch.float32
