"""A script played on an engine: its steps in order, checked before anyone believes them."""

import math
from collections.abc import Callable, Iterator
from dataclasses import astuple
from functools import partial
from typing import TYPE_CHECKING

from hgpu.core.errors import EngineError, InvalidMeasurement
from hgpu.core.step import StepBatch
from hgpu.profilers.design import Script

if TYPE_CHECKING:
    from hgpu.profilers.vllm_engine import TimedEngine

Step = tuple[StepBatch, float]  # with its seconds

STALLED_STEPS = 16  # in which no prompt token is computed though one waits


def played(engine: "TimedEngine", script: Script) -> tuple[Step, ...]:
    """Return the steps of a script, and leave the engine empty.

    Raises EngineError where the engine stalls, InvalidMeasurement where it counts garbage.
    """
    steps = tuple(play(engine, script))
    engine.clear()
    for batch, seconds in steps:
        if not (math.isfinite(seconds) and seconds > 0):
            raise InvalidMeasurement(f"a step took {seconds} s", fix="profile again")
        if any(not math.isfinite(number) or number < 0 for number in astuple(batch)):
            raise InvalidMeasurement(f"a step held {batch}", fix="profile again")
    return steps


def play(engine: "TimedEngine", script: Script) -> Iterator[Step]:
    """Yield the steps of a script: climb the rungs, decode on each, then prefill the prompt."""
    running = 0
    for rung in script.rungs:
        for _ in range(running, rung):
            engine.add(script.decode_context)
        running = rung
        yield from _steps(engine, script.decode_steps, partial(_decodes, rung))
    if script.prefill_tokens:
        engine.add(script.prefill_tokens)
        yield from _steps(engine, script.prefill_tokens, lambda batch: batch.prefill_tokens)


def _decodes(rung: int, batch: StepBatch) -> float:
    return float(batch.decode_seqs == rung)


def _steps(engine: "TimedEngine", wanted: float, gain: Callable[[StepBatch], float]) -> Iterator[Step]:
    """Yield steps until their gains add up to what is wanted; raise where prompts don't move."""
    stalled = 0
    while wanted > 0:
        batch, seconds = engine.step()
        yield batch, seconds
        gained = gain(batch)
        wanted -= gained
        stalled = 0 if gained or batch.prefill_tokens else stalled + 1
        if stalled > STALLED_STEPS:
            raise EngineError(
                f"vLLM left a prompt waiting for {STALLED_STEPS} steps",
                f"{batch.seqs:.0f} sequences run, and it takes up no other",
                "profile with a larger max_num_seqs or KV cache",
            )
