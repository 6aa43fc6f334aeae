"""How a scheduler treats prompts beside the requests that decode: what mode `pd` adds to `mixed`."""

from dataclasses import dataclass

from hgpu.core.step import StepModel


@dataclass(frozen=True, slots=True)
class PhaseOptions:
    """What the policy of `hgpu.latency.phases` may do.

    `ageing_tok_per_s` is γ, None for first come, first served. `tpot_s` is the objective that the budget
    keeps, None for vLLM's own budget. `least_tokens` of a prompt are worth a step; its last ones always are.
    """

    ageing_tok_per_s: float | None = None
    tpot_s: float | None = None
    least_tokens: int = 16


@dataclass(frozen=True, slots=True)
class Phases:
    """The policy's options, and the step model that a budget needs."""

    options: PhaseOptions
    step: StepModel | None = None
