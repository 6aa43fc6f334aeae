"""A CPU's cores as the two sides of a split: one pinned process each, as two vLLM engines would be.

Each process binds itself to its cores before torch starts its threads, so that these inherit them. It is
asked over a pipe; a prefill that goes on without a pause looks for the end between two layers.
"""

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from hgpu.core.errors import EngineError, InputError
from hgpu.core.partition import PREFILL, OperatorClass, Split
from hgpu.profilers.mini_shape import MiniShape, Size
from hgpu.profilers.partition import Device

START_S, STEP_S = 180.0, 600.0  # importing torch and making weights; the slowest step of a sweep


def cpu_device(shape: MiniShape, kv_tokens: int) -> Device:
    """Return the device that splits the cores which this process may use.

    Raises InputError where a split has more units than there are cores, EngineError where a side dies.
    """

    @contextmanager
    def sides(split: Split) -> Iterator[CpuSides]:
        cores = sorted(os.sched_getaffinity(0))
        if split.units > len(cores):
            raise InputError(
                f"a split of {split.units} cores can't be made of {len(cores)}",
                "each side has cores of its own",
                "sweep splits of the cores that this process may use",
            )
        parts = cores[: split.prefill_units], cores[split.prefill_units : split.units]
        with _side(shape, kv_tokens, parts[0]) as prefill, _side(shape, kv_tokens, parts[1]) as decode:
            yield CpuSides(prefill, decode)

    return sides


@dataclass(frozen=True, slots=True)
class CpuSides:
    """The pipes to both sides' processes."""

    prefill: Connection
    decode: Connection

    def alone_s(self, kind: OperatorClass, size: Size, repeats: int) -> Sequence[float]:
        """Return the seconds of a class's operators, the other side idle."""
        side = self.prefill if kind in PREFILL else self.decode
        return list(_ask(side, (kind, size, repeats)))

    def beside_s(self, decode: Size, prefill: Size, repeats: int) -> Sequence[float]:
        """Return the seconds of decode attention beside a prefill that goes on."""
        _ask(self.prefill, prefill)  # answered when the first layer is done
        try:
            return self.alone_s(OperatorClass.DECODE_ATTENTION, decode, repeats)
        finally:
            _ask(self.prefill, None)


@dataclass(frozen=True, slots=True)
class _Refusal:
    """An InputError on its way through a pipe, whole: pickled, it would lose its reason."""

    what: str
    why: str
    fix: str


@contextmanager
def _side(shape: MiniShape, kv_tokens: int, cores: Sequence[int]) -> Iterator[Connection]:
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(there, shape, kv_tokens, cores), daemon=True
    )
    process.start()
    there.close()
    try:
        _answer(here, START_S)
        yield here
    finally:
        here.close()  # the process ends at the end of its pipe
        process.join(5.0)
        if process.is_alive():
            process.kill()
            process.join()


def _ask(side: Connection, asked: Any) -> Any:
    """Send a question and return its answer."""
    try:
        side.send(asked)
    except OSError as error:
        raise EngineError("a side of the split died", "its last words are above") from error
    return _answer(side)


def _answer(side: Connection, within_s: float = STEP_S) -> Any:
    try:
        if not side.poll(within_s):
            raise EngineError(f"a side of the split didn't answer within {within_s:g} s")
        answer = side.recv()
    except (EOFError, OSError) as error:
        raise EngineError("a side of the split died", "its last words are above") from error
    if isinstance(answer, _Refusal):
        raise InputError(answer.what, answer.why, answer.fix)
    return answer


def _serve(pipe: Connection, shape: MiniShape, kv_tokens: int, cores: Sequence[int]) -> None:
    """Answer until the pipe ends: a class and a size with seconds, a prompt's size with a running prefill."""
    os.sched_setaffinity(0, cores)
    import torch

    from hgpu.profilers.mini_engine import MiniEngine

    torch.set_num_threads(len(cores))
    with torch.inference_mode():
        engine = MiniEngine(shape, "cpu", kv_tokens)
        pipe.send(len(cores))
        while True:
            try:
                asked = pipe.recv()
            except EOFError:
                return
            pipe.send(_answered(pipe, engine, asked))


def _answered(pipe: Connection, engine: Any, asked: Any) -> Any:
    try:
        return _prefilling(pipe, engine, asked) if isinstance(asked, Size) else _times(engine, *asked)
    except InputError as error:
        return _Refusal(error.what, error.why, error.fix)


def _times(engine: Any, kind: OperatorClass, size: Size, repeats: int) -> list[float]:
    run = engine.operators(kind, size)
    run()  # the first one allocates
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return seconds


def _prefilling(pipe: Connection, engine: Any, size: Size) -> int:
    """Compute prompts until the other end says stop; return how many layers that were."""
    start = engine.prefill_round(size)
    layers = 0
    while True:
        for _ in start():
            layers += 1
            if layers == 1:
                pipe.send(layers)
            if pipe.poll():
                pipe.recv()
                return layers
