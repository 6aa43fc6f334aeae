"""LaMDA's factors as a torch module that saves little for the backward pass and frees what it freezes.

The adapted map is W x + (B S − C) A x, with C = B S as it was at the start. The base keeps its weight, where
the paper takes C A from it: the same map, but exactly the plain one at the start in any precision, with
several adapters over one base, and with each of them switched off.
"""

from typing import Any

import torch
from torch import Tensor, nn

from hgpu.tuning.lamda import Factors, frozen_columns


class LowDimensional(torch.autograd.Function):  # type: ignore[misc]  # torch is not followed by mypy
    """y = (B S − C) A x over the last axis of x, with all matrices of (rank × out) kept transposed.

    Saved for the backward pass is A x alone: rank numbers a token, in x's place with its whole width (as LoRA
    saves it to train A) and in that of S A x (which plain autograd saves to train B).
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, a: Tensor, s: Tensor, b: Tensor, frozen: Tensor, anchor: Tensor
    ) -> Tensor:
        """Return y for x (… × in), A (rank × in), S, B's trained and frozen columns as rows, and C."""
        small = x @ a.T
        ctx.save_for_backward(small, a, s, b, frozen, anchor)
        return small @ _map(s, b, frozen, anchor)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, S and B's trained columns."""
        small, a, s, b, frozen, anchor = ctx.saved_tensors
        for_x, for_s, for_b = (ctx.needs_input_grad[number] for number in (0, 2, 3))
        of_x = (grad @ _map(s, b, frozen, anchor).T) @ a if for_x else None
        of_s = of_b = None
        if for_s or for_b:
            of_map = small.flatten(0, -2).T @ grad.flatten(0, -2)
            of_s = _columns(b, frozen) @ of_map.T if for_s else None
            of_b = s[len(frozen) :] @ of_map if for_b else None
        return of_x, None, of_s, of_b, None, None


def _columns(b: Tensor, frozen: Tensor) -> Tensor:
    return torch.cat((frozen, b)) if len(frozen) else b


def _map(s: Tensor, b: Tensor, frozen: Tensor, anchor: Tensor) -> Tensor:
    """Return (B S − C)ᵀ (rank × out)."""
    return torch.addmm(anchor, s.T, _columns(b, frozen), beta=-1)


class LamdaFactors(nn.Module):  # type: ignore[misc]  # torch is not followed by mypy
    """The factors of one weight. `s` and `b` are trained; `b` loses the rows that `frozen` gains.

    The state that is saved doesn't depend on how much is frozen: `b` stands in it whole.
    """

    a: Tensor
    anchor: Tensor
    frozen: Tensor

    def __init__(self, rank: int, inner: int, out: int, **where: Any) -> None:
        super().__init__()
        self.rank = rank
        self.s = nn.Parameter(torch.zeros(rank, rank, **where))
        self.b = nn.Parameter(torch.zeros(rank, out, **where))
        self.register_buffer("a", torch.zeros(rank, inner, **where))
        self.register_buffer("anchor", torch.zeros(rank, out, **where))
        self.register_buffer("frozen", torch.zeros(0, out, **where), persistent=False)
        self.register_state_dict_post_hook(_join)
        self.register_load_state_dict_pre_hook(_split)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def start(self, factors: Factors) -> None:
        """Take the values of `factors`."""
        self.a.copy_(torch.from_numpy(factors.a))
        self.s.copy_(torch.from_numpy(factors.s))
        self.b.copy_(torch.from_numpy(factors.b.T))
        self.anchor.copy_(self.s.T @ self.b)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the factors add to the plain map, in their own precision."""
        with torch.autocast(x.device.type, enabled=False):
            y: Tensor = LowDimensional.apply(
                x.to(self.a.dtype), self.a, self.s, self.b, self.frozen, self.anchor
            )
        return y

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def delta(self) -> Tensor:
        """Return (B S − C) A (out × in), which merging adds to the weight."""
        return _map(self.s, self.b, self.frozen, self.anchor).T @ self.a

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def freeze(self, columns: int, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Freeze B's first `columns`: neither gradient nor optimizer state is left of them, nor any decay.

        Columns that are frozen stay so.
        """
        more = columns - len(self.frozen)
        if more <= 0:
            return
        before = self.b
        self.frozen = torch.cat((self.frozen, before[:more]))
        self.b = nn.Parameter(before[more:].clone(), requires_grad=len(before) > more)
        if optimizer is not None:
            _replace(optimizer, before, self.b)


def _replace(optimizer: torch.optim.Optimizer, before: nn.Parameter, after: nn.Parameter) -> None:
    """Put a parameter's last rows in its place in the optimizer, with their state; nothing if none is left.

    A new parameter and not a shorter one, as autograd keeps the shape of one that a living graph has seen.
    """
    for group in optimizer.param_groups:
        swapped = [after if parameter is before else parameter for parameter in group["params"]]
        group["params"] = [parameter for parameter in swapped if len(after) or parameter is not after]
    state = optimizer.state.pop(before, None)
    if state is not None and len(after):
        optimizer.state[after] = {
            name: value[-len(after) :].clone()
            if isinstance(value, Tensor) and value.shape == before.shape
            else value
            for name, value in state.items()
        }


def _join(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    state[prefix + "b"] = _columns(state[prefix + "b"], module.frozen)


def _split(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    whole, rows = state.get(prefix + "b"), len(module.frozen)
    if whole is not None and rows and len(whole) == module.rank:
        module.frozen.copy_(whole[:rows])
        state[prefix + "b"] = whole[rows:]


def freeze_for_step(
    model: nn.Module, optimizer: torch.optim.Optimizer | None, step: int, steps: int, eta: float
) -> None:
    """Freeze what LaMDA's schedule freezes before a step (from 0) in all factors that are being trained."""
    for module in model.modules():
        if isinstance(module, LamdaFactors) and module.s.requires_grad:
            module.freeze(frozen_columns(step, steps, module.rank, eta), optimizer)
