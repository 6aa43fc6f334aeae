"""A GPU's SMs as the two sides of a split: a CUDA green context and a stream of its own for each.

Both phases are in green contexts, as kernels of the primary one run on all SMs. What runs on a side is
captured as a CUDA graph on its stream, which keeps the side's SMs: launching costs nothing that is timed, and
each split has graphs of its own. High-bandwidth memory and L2 are shared; that is what contention is.

Not run on a GPU yet: written from cuda-core's interface (`Device.resources.sm.split`, `create_context`).
"""

import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from hgpu.core.errors import EngineError, InputError, InvalidMeasurement
from hgpu.core.partition import PREFILL, OperatorClass, Split
from hgpu.profilers.mini_shape import MiniShape, Size
from hgpu.profilers.partition import Device

_TRIES = 6  # each with twice the prefill beside a decode


def require_green_contexts() -> None:
    """Raise EngineError where green contexts can't be made: no torch, no GPU, or no cuda-core."""
    if importlib.util.find_spec("torch") is None:
        raise _needed("torch isn't installed", f"'{sys.executable}' can't import it")
    import torch

    if not torch.cuda.is_available():
        raise _needed("torch sees no CUDA GPU", "a CPU is split by its cores: cpu_sides.cpu_device")
    if importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.core") is None:
        raise _needed("cuda-core isn't installed", "torch's own green contexts may overlap")


def cut_side(split: Split, step: int) -> tuple[int, bool]:
    """Return the units of the side that is cut out of the device, and whether that is prefill's.

    The other side is what remains. Raises InputError where neither is a multiple of `step`.
    """
    if split.prefill_units % step == 0:
        return split.prefill_units, True
    if split.decode_units % step == 0:
        return split.decode_units, False
    raise InputError(
        f"{split} can't be made on this GPU",
        f"its SMs come in groups of {step}, and neither side is a multiple of it",
        "sweep the splits of `lattice_of` this GPU",
    )


def green_device(shape: MiniShape, kv_tokens: int, index: int = 0) -> Device:
    """Return the device that splits the SMs of a GPU. Raises EngineError where that can't be done."""
    require_green_contexts()
    import torch
    from cuda.core import Device as CudaDevice

    from hgpu.profilers.mini_engine import MiniEngine

    gpu = CudaDevice(index)
    gpu.set_current()
    torch.cuda.set_device(index)
    engine = MiniEngine(shape, f"cuda:{index}", kv_tokens)

    @contextmanager
    def sides(split: Split) -> Iterator[GreenSides]:
        contexts = [_context(gpu, part) for part in _parts(gpu.resources.sm, split)]
        try:
            streams = [context.create_stream() for context in contexts]
            outside = [torch.cuda.ExternalStream(int(s.handle), device=f"cuda:{index}") for s in streams]
            with torch.inference_mode():
                yield GreenSides(engine, *outside)
            torch.cuda.synchronize(index)
        finally:
            for context in contexts:
                context.close()

    return sides


@dataclass(slots=True)
class GreenSides:
    """A mini-engine and the streams of both sides; graphs are kept for the split."""

    engine: Any
    prefill: Any
    decode: Any
    _graphs: dict[Any, Any] = field(default_factory=dict)

    def alone_s(self, kind: OperatorClass, size: Size, repeats: int) -> Sequence[float]:
        """Return the seconds of a class's operators, the other side idle."""
        stream = self.prefill if kind in PREFILL else self.decode
        graph = self._graph((kind, size), stream, lambda: self.engine.operators(kind, size))
        return _timed(graph, stream, repeats)

    def beside_s(self, decode: Size, prefill: Size, repeats: int) -> Sequence[float]:
        """Return the seconds of decode attention beside a prefill that outlasts it.

        Raises InvalidMeasurement where no number of prompts does.
        """
        import torch

        prompts = self._graph(prefill, self.prefill, lambda: _whole(self.engine.prefill_round(prefill)))
        kind = OperatorClass.DECODE_ATTENTION
        alone_s = sum(self.alone_s(kind, decode, repeats))
        rounds = 2 + int(4 * alone_s / min(_timed(prompts, self.prefill, 3)))
        for _ in range(_TRIES):
            begun, ended = torch.cuda.Event(), torch.cuda.Event()
            with torch.cuda.stream(self.prefill):
                prompts.replay()
                begun.record()
                for _ in range(rounds):
                    prompts.replay()
                ended.record()
            begun.synchronize()
            seconds = _timed(self._graphs[kind, decode], self.decode, repeats)
            outlasted = not ended.query()
            ended.synchronize()
            if outlasted:
                return seconds
            rounds *= 2
        raise InvalidMeasurement(
            f"prefill of {prefill} ended before decode of {decode} was timed",
            f"even with {rounds // 2} prompts in a row",
            "sweep longer prompts",
        )

    def _graph(self, key: Any, stream: Any, make: Callable[[], Callable[[], Any]]) -> Any:
        import torch

        if key not in self._graphs:
            run = make()
            torch.cuda.synchronize()  # the inputs were made on another stream
            with torch.cuda.stream(stream):
                for _ in range(2):  # what is set up at the first call can't be captured
                    run()
            stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream):
                run()
            self._graphs[key] = graph
        return self._graphs[key]


def _parts(sm: Any, split: Split) -> tuple[Any, Any]:
    """Return the SMs of prefill's side and of decode's, having counted them."""
    from cuda.core import SMResourceOptions

    if split.units != sm.sm_count:
        raise InputError(
            f"{split} isn't a split of this GPU", f"it has {sm.sm_count} SMs", "sweep its own splits"
        )
    units, prefill = cut_side(split, sm.coscheduled_alignment)
    (cut,), rest = sm.split(SMResourceOptions(count=units, backfill=True))
    parts = (cut, rest) if prefill else (rest, cut)
    made = Split(parts[0].sm_count, parts[1].sm_count)
    if made != split:
        raise EngineError(f"the driver made {made} of {split}", "a sweep must know its shares", "")
    return parts


def _context(gpu: Any, part: Any) -> Any:
    from cuda.core import ContextOptions

    return gpu.create_context(ContextOptions(resources=[part]))


def _timed(graph: Any, stream: Any, repeats: int) -> list[float]:
    import torch

    seconds = []
    with torch.cuda.stream(stream):
        for _ in range(repeats):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            graph.replay()
            end.record()
            end.synchronize()
            seconds.append(start.elapsed_time(end) / 1e3)
    return seconds


def _whole(start: Callable[[], Iterator[Any]]) -> Callable[[], None]:
    def run() -> None:
        for _ in start():
            pass

    return run


def _needed(what: str, why: str) -> EngineError:
    return EngineError(
        f"green contexts can't be made: {what}", why, "pip install 'hgpu[partition]' beside an NVIDIA GPU"
    )
