"""Which batches to run: few, and spread so that every term of the step model shows."""

from collections.abc import Iterator
from dataclasses import dataclass

from hgpu.core.operating_point import EngineOptions
from hgpu.core.step import StepBatch


@dataclass(frozen=True, slots=True)
class Script:
    """A scripted batch.

    First `decode_seqs` prompts of `decode_context` tokens are prefilled and decoded for
    `decode_steps` steps; then, while they go on, one prompt of `prefill_tokens` is prefilled
    in as many chunks as the token budget makes of it. Every step on the way is a sample.
    """

    name: str
    decode_seqs: int = 0
    decode_context: int = 0
    decode_steps: int = 0
    prefill_tokens: int = 0

    @property
    def kv_tokens(self) -> int:
        """KV tokens that the script holds at its largest."""
        return self.decode_seqs * (self.decode_context + self.decode_steps + 64) + self.prefill_tokens


def design(engine: EngineOptions, setup_tokens: int, decode_steps: int = 8) -> list[Script]:
    """Return the scripts for an engine.

    `setup_tokens` bounds the prompt tokens that are prefilled only to be decoded after; long
    contexts with many sequences are left to the model where they would cost more than that.
    """
    scripts = [*_prefills(engine), *_decodes(engine, setup_tokens, decode_steps), *_mixed(engine, setup_tokens)]
    return list({script.name: script for script in scripts}.values())


def geometric(low: int, high: int, factor: int) -> list[int]:
    """Return low, low·factor, … and `high` itself."""
    values = []
    while low < high:
        values.append(low)
        low *= factor
    return [*values, high]


def _prefills(engine: EngineOptions) -> Iterator[Script]:
    budget = engine.max_num_batched_tokens
    longest = engine.max_model_len - 1
    lengths = geometric(max(16, budget // 32), min(budget, longest), 2)
    lengths += [tokens for tokens in (2 * budget, 3 * budget) if tokens <= longest]
    for tokens in lengths:
        yield Script(f"prefill-{tokens}", prefill_tokens=tokens)


def _decodes(engine: EngineOptions, setup_tokens: int, steps: int) -> Iterator[Script]:
    longest = engine.max_model_len - steps - 64
    for seqs in geometric(1, engine.max_num_seqs, 2):
        contexts = {32, min(longest, setup_tokens // (2 * seqs)), min(longest, setup_tokens // seqs)}
        for context in sorted(c for c in contexts if c >= 16):
            yield Script(f"decode-{seqs}x{context}", seqs, context, steps)


def _mixed(engine: EngineOptions, setup_tokens: int) -> Iterator[Script]:
    budget = engine.max_num_batched_tokens
    for seqs in sorted({max(1, engine.max_num_seqs // 8), max(1, engine.max_num_seqs // 2)}):
        context = max(16, min(engine.max_model_len // 4, setup_tokens // (2 * seqs)))
        for tokens in (budget // 4, budget - seqs):
            yield Script(f"mixed-{seqs}x{context}+{tokens}", seqs, context, 2, tokens)


def batches(script: Script, budget: int) -> Iterator[StepBatch]:
    """Return the steps that matter of a script, as an engine would batch them.

    Used where steps are computed, not run: the decode step, then each prefill chunk.
    """
    seqs, context = script.decode_seqs, script.decode_context + script.decode_steps / 2
    if seqs:
        yield StepBatch(decode_seqs=seqs, decode_context_tokens=seqs * context)
    done = 0
    while done < script.prefill_tokens:
        new = min(script.prefill_tokens - done, budget - seqs)
        yield StepBatch(
            prefill_tokens=new,
            prefill_seqs=1,
            prefill_pairs=new * done + new * (new + 1) / 2,
            prefill_context_tokens=done,
            decode_seqs=seqs,
            decode_context_tokens=seqs * context,
        )
        done += new
