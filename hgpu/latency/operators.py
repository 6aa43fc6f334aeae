"""The work and the bytes of a step of each phase, by operator class.

The layers of a model are alike, so a class counts its operators over all of them at once: the sum over
layers of max(compute, memory) is the max of the sums.
"""

from hgpu.core.errors import InputError
from hgpu.core.model import ModelSpec
from hgpu.core.partition import Load, Work
from hgpu.core.step import StepBatch


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
