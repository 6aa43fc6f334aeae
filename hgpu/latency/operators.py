"""The work and the bytes of both phases of a step, by operator class.

A class holds the operators that run alike: the matrix multiplications of prefill (compute-bound as a rule)
and of decode (bound by reading weights), the attention of prompts and that of decode (bound by reading KV).
The layers of a model are alike, so a class counts its operators over all of them at once: the sum over
layers of max(compute, memory) is the max of the sums.
"""

from dataclasses import dataclass
from enum import StrEnum

from hgpu.core.errors import InputError
from hgpu.core.model import ModelSpec
from hgpu.core.step import StepBatch


class OperatorClass(StrEnum):
    """Operators of one phase that share their roofs."""

    PREFILL_DENSE = "prefill-dense"
    PREFILL_ATTENTION = "prefill-attention"
    DECODE_DENSE = "decode-dense"
    DECODE_ATTENTION = "decode-attention"


PREFILL = (OperatorClass.PREFILL_DENSE, OperatorClass.PREFILL_ATTENTION)


@dataclass(frozen=True, slots=True)
class Work:
    """Floating-point operations, and bytes that come from or go to device memory."""

    flops: float
    bytes: float

    def __post_init__(self) -> None:
        if not (0 <= self.flops < float("inf") and 0 <= self.bytes < float("inf")):
            raise InputError(f"{self.flops} FLOPs and {self.bytes} bytes are no work", "both are 0 or more")


@dataclass(frozen=True, slots=True)
class Load:
    """What a step of each phase does, run beside each other on one device."""

    prefill_dense: Work
    prefill_attention: Work
    decode_dense: Work
    decode_attention: Work

    def __post_init__(self) -> None:
        if not all(work.flops and work.bytes for work in (self.prefill_dense, self.decode_dense)):
            raise InputError(
                "a phase without matrix multiplications can't be split from the other",
                "each step reads weights and multiplies them",
                "run a device with a single phase whole",
            )

    def of(self, kind: OperatorClass) -> Work:
        """Return the work of one operator class."""
        work: Work = getattr(self, kind.name.lower())
        return work


def load_of(model: ModelSpec, prefill: StepBatch, decode: StepBatch, tp: int = 1) -> Load:
    """Return the load of a prefill step and a decode step of `model` on each of `tp` devices.

    Activations aren't counted among the bytes: they mostly stay in the caches. The prompt's own KV is:
    attention reads it after it was written. Raises InputError unless each step is of its phase alone;
    a device with one phase only needs no split.
    """
    if prefill.decode_seqs or not prefill.prefill_tokens or decode.prefill_tokens or not decode.decode_seqs:
        raise InputError(
            "a split needs a step of prompts and a step of decodes",
            f"got a {prefill.phase} step of {prefill.tokens:g} tokens, and "
            f"a {decode.phase} step of {decode.tokens:g}",
            "run a device with a single phase whole",
        )
    seqs = prefill.prefill_seqs or 1.0
    reads = prefill.prefill_context_tokens + prefill.prefill_tokens
    pair_flops = model.attention_flops_per_pair + model.window_attention_flops_per_pair
    context = decode.decode_context_tokens / decode.decode_seqs
    windowed = min(context, model.window_tokens) * model.window_attention_flops_per_pair
    decode_flops = context * model.attention_flops_per_pair + windowed
    return Load(
        _dense(model, prefill.prefill_tokens, tp),
        Work(prefill.prefill_pairs * pair_flops / tp, seqs * model.kv_bytes(reads / seqs) / tp),
        _dense(model, decode.decode_seqs, tp),
        Work(decode.decode_seqs * decode_flops / tp, decode.decode_seqs * model.kv_bytes(context) / tp),
    )


def _dense(model: ModelSpec, tokens: float, tp: int) -> Work:
    return Work(tokens * model.flops_per_token / tp, model.step_weight_bytes(tokens) / tp)
