"""What is in an engine step, and the model of how long it takes."""

from dataclasses import dataclass
from typing import Any

from hgpu.core.copies import ExpertCopies
from hgpu.core.provenance import Provenance


@dataclass(frozen=True, slots=True)
class StepBatch:
    """The contents of one engine step.

    - `prefill_tokens`: prompt tokens computed in this step, over `prefill_seqs` sequences;
    - `prefill_pairs`: (query, key) pairs of those tokens: for n new tokens after c computed
      ones, n·c + n·(n + 1)/2, summed over the sequences;
    - `prefill_context_tokens`: computed tokens of those sequences whose KV is read again;
    - `decode_seqs`: sequences that get one token each;
    - `decode_context_tokens`: their KV tokens, summed.
    """

    prefill_tokens: float = 0.0
    prefill_seqs: float = 0.0
    prefill_pairs: float = 0.0
    prefill_context_tokens: float = 0.0
    decode_seqs: float = 0.0
    decode_context_tokens: float = 0.0

    @property
    def tokens(self) -> float:
        """Tokens that pass through the model in this step."""
        return self.prefill_tokens + self.decode_seqs

    @property
    def seqs(self) -> float:
        """Sequences in this step."""
        return self.prefill_seqs + self.decode_seqs

    @property
    def phase(self) -> str:
        """`prefill`, `decode` or `mixed`."""
        if not self.decode_seqs:
            return "prefill"
        return "mixed" if self.prefill_tokens else "decode"

    @property
    def decodes(self) -> "StepBatch":
        """The same step without its prefill."""
        return StepBatch(decode_seqs=self.decode_seqs, decode_context_tokens=self.decode_context_tokens)


def prefill_batch(new_tokens: float, context_tokens: float = 0.0) -> StepBatch:
    """Return the step that computes `new_tokens` of one prompt after `context_tokens`."""
    return StepBatch(
        prefill_tokens=new_tokens,
        prefill_seqs=1.0,
        prefill_pairs=new_tokens * context_tokens + new_tokens * (new_tokens + 1) / 2,
        prefill_context_tokens=context_tokens,
    )


def matmul_load(
    tokens: Any, knee_tokens: float, sharpness: float, expert_reuse: float = 0.0, expert_share: float = 0.0
) -> Any:
    """Return the load of a step's matrix multiplications; 1 is one full read of the weights.

        ((1 − s·r^T)^p + (T/knee)^p)^(1/p)

    with T tokens (a float or an array), r `expert_reuse`, s `expert_share` and p `sharpness`.
    See StepModel for what the letters mean.
    """
    touched = 1.0 - expert_share * expert_reuse**tokens
    return (touched**sharpness + (tokens / knee_tokens) ** sharpness) ** (1.0 / sharpness)


def at_most_one(amount: Any) -> Any:
    """Return min(amount, 1) of a float or an array, exactly: rounding never lets it fall."""
    return amount * (amount < 1) + (amount >= 1)


@dataclass(frozen=True, slots=True)
class StepModel:
    """Latency of one engine step: non-negative coefficients on physical features.

        t = overhead_s
          + linear_s · ((1 − s·r^T)^p + (T/knee_tokens)^p)^(1/p)
          + pair_s · prefill_pairs
          + kv_s · (decode_context_tokens + prefill_context_tokens)
          + seq_s · seqs
          + prefill_s · min(prefill_seqs, 1)

    T is the tokens of the step. The second term is the matrix multiplications: weights are
    read once a step whatever its size, while their work grows with T; p (`sharpness`) says how
    clearly the larger of the two takes over (p = 1: they add up; p → ∞: the roofline's
    maximum). A mixture of experts reads fewer weights for few tokens: s
    (`expert_weight_share`) is the part of the weights that its experts hold and r
    (`expert_reuse`) is 1 − k/E; both are 0 for dense models. The last term is what a step pays once for
    any prefill at all: the attention of prompts has kernels of its own, which cost 40 to 60 µs a layer
    however short the prompt (benchmarks/silicon). A fraction of a chunk, as a closed form may ask about,
    pays that fraction. Every feature grows with every
    part of the batch and no coefficient is negative, so a larger step is never predicted to be
    faster, and no prediction is negative. Where experts are copied from the host, `copies` says what that
    makes of t (mode `offload`).
    """

    overhead_s: float
    linear_s: float
    pair_s: float
    kv_s: float
    seq_s: float
    knee_tokens: float
    sharpness: float
    expert_reuse: float = 0.0
    expert_weight_share: float = 0.0
    prefill_s: float = 0.0
    copies: ExpertCopies | None = None

    def step_s(self, batch: StepBatch) -> float:
        """Return the predicted seconds of one step. Arrays in `batch` give an array."""
        context = batch.decode_context_tokens + batch.prefill_context_tokens
        load = matmul_load(
            batch.tokens, self.knee_tokens, self.sharpness, self.expert_reuse, self.expert_weight_share
        )
        seconds: float = (
            self.overhead_s
            + self.linear_s * load
            + self.pair_s * batch.prefill_pairs
            + self.kv_s * context
            + self.seq_s * batch.seqs
            + self.prefill_s * at_most_one(batch.prefill_seqs)
        )
        return seconds if self.copies is None else self.copies.step_s(batch.tokens, seconds)


@dataclass(frozen=True, slots=True)
class LatencyModel:
    """A step model with its limits, its error and where it comes from.

    `kv_capacity_tokens` is what the engine's cache holds. `median_error` is the cross-validated
    median of |predicted − measured|/measured, and `p90_error` its 90th percentile.
    `noise` is the median relative spread of repeated steps: no model can do better.
    `request_s` is the fixed cost of a request before its first step (HTTP, tokenizer), 0 where it
    wasn't measured.
    """

    step: StepModel
    kv_capacity_tokens: int
    median_error: float
    p90_error: float
    noise: float
    provenance: Provenance
    request_s: float = 0.0
