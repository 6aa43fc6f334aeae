"""Which batches to run: few, and spread so that every term of the step model shows."""

from collections.abc import Iterator
from dataclasses import dataclass

from hgpu.core.operating_point import EngineOptions
from hgpu.core.step import StepBatch

SHORT_CONTEXT = 16  # tokens of a prompt that is there only to be decoded


@dataclass(frozen=True, slots=True)
class Script:
    """A scripted batch: a ladder of decodes, then one prompt.

    Prompts of `decode_context` tokens join until 1, 2, 4, … `decode_seqs` of them decode, each
    rung for `decode_steps` steps; then, while they go on, one prompt of `prefill_tokens` is
    prefilled in as many chunks as the token budget makes of it. Every step on the way is a
    sample, those in which prompts join included. Climbing re-uses what a lower rung prefilled,
    which is most of the cost of decoding long contexts.
    """

    name: str
    decode_seqs: int = 0
    decode_context: int = 0
    decode_steps: int = 0
    prefill_tokens: int = 0

    @property
    def rungs(self) -> list[int]:
        """Numbers of sequences that decode together, one after the other."""
        return geometric(1, self.decode_seqs, 2) if self.decode_seqs else []

    @property
    def kv_tokens(self) -> int:
        """KV tokens that the script holds at its largest, with room for unfilled cache blocks.

        Half of the sequences join on the last rung, a quarter on the one before, …: a rung's
        steps are decoded by twice the last rung's sequences at most.
        """
        return self.decode_seqs * (self.decode_context + 2 * self.decode_steps + 64) + self.prefill_tokens

    @property
    def seqs(self) -> int:
        """Sequences at its largest."""
        return self.decode_seqs + (self.prefill_tokens > 0)

    @property
    def longest_prompt(self) -> int:
        """Tokens of its longest prompt."""
        return max(self.decode_context, self.prefill_tokens)


def design(engine: EngineOptions, setup_tokens: int, decode_steps: int = 8) -> list[Script]:
    """Return the scripts for an engine.

    `setup_tokens` bounds the prompt tokens that a ladder prefills only to decode after; long
    contexts with many sequences are left to the model where they would cost more than that.
    """
    scripts = [*_prefills(engine), *_ladders(engine, setup_tokens, decode_steps)]
    return list({script.name: script for script in scripts}.values())


def geometric(low: int, high: int, factor: int) -> list[int]:
    """Return low, low·factor, … and `high` itself."""
    values = []
    while low < high:
        values.append(low)
        low *= factor
    return [*values, high]


def _prefills(engine: EngineOptions) -> Iterator[Script]:
    """One prompt each: parts of a chunk, a whole one, and three with the context that they add."""
    budget = engine.max_num_batched_tokens
    longest = engine.max_model_len - 1
    lengths = geometric(max(16, budget // 32), min(budget, longest), 2)
    for tokens in [*lengths, min(2 * budget, longest), min(3 * budget, longest)]:
        yield Script(f"prefill-{tokens}", prefill_tokens=tokens)


def _ladders(engine: EngineOptions, setup_tokens: int, steps: int) -> Iterator[Script]:
    """From many short sequences to few long ones; where a sequence has room yet, a prompt follows."""
    seqs, budget = engine.max_num_seqs, engine.max_num_batched_tokens
    yield _ladder(engine, seqs, SHORT_CONTEXT, steps, 0)
    for number, top in enumerate(reversed(geometric(1, seqs, 4))):
        prompt = (budget, budget // 4)[number % 2] - top if top < seqs else 0
        script = _ladder(engine, top, setup_tokens // top, steps, prompt)
        yield script
        if script.decode_context < setup_tokens // top:
            break  # the model's longest context: fewer sequences would only climb less far


def _ladder(engine: EngineOptions, seqs: int, context: int, steps: int, prompt: int) -> Script:
    longest = engine.max_model_len - len(geometric(1, seqs, 2)) * steps - 64
    context = max(SHORT_CONTEXT, min(context, longest))
    prompt = max(0, min(prompt, engine.max_model_len - 1))
    name = f"decode-{seqs}x{context}" + (f"+{prompt}" if prompt else "")
    return Script(name, seqs, context, steps, prompt)


def batches(script: Script, budget: int) -> Iterator[StepBatch]:
    """Return the steps that matter of a script, as an engine would batch them.

    Used where steps are computed, not run: the decode step of each rung, then each chunk of
    the prompt.
    """
    decoded = 0.0
    for seqs in script.rungs:
        context = seqs * (script.decode_context + decoded + script.decode_steps / 2)
        yield StepBatch(decode_seqs=seqs, decode_context_tokens=context)
        decoded += script.decode_steps / 2  # of the average sequence: half of them join a rung later
    yield from _chunks(script, budget, script.decode_seqs * (script.decode_context + decoded))


def _chunks(script: Script, budget: int, decode_context_tokens: float) -> Iterator[StepBatch]:
    done, room = 0, max(1, budget - script.decode_seqs)
    while done < script.prefill_tokens:
        new = min(script.prefill_tokens - done, room)
        yield StepBatch(
            prefill_tokens=new,
            prefill_seqs=1,
            prefill_pairs=new * done + new * (new + 1) / 2,
            prefill_context_tokens=done,
            decode_seqs=script.decode_seqs,
            decode_context_tokens=decode_context_tokens,
        )
        done += new
