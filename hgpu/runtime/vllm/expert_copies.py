"""Copying between tensors: at once, or on a CUDA stream of its own beside what is computed.

Imported by vLLM only. The CUDA half is written after CUDA's rules of order and has not yet run on a GPU.
"""

import time
from collections.abc import Iterable
from typing import Any, Protocol

import torch

Pair = tuple[torch.Tensor, torch.Tensor]  # to, from


class Copies(Protocol):
    """Copies tensors, and counts for how long steps waited for that."""

    stall_s: float

    def copy(self, pairs: Iterable[Pair]) -> None:
        """Begin to copy; what was computed on the targets before is finished first."""

    def mark(self) -> Any:
        """Return a mark of all copies begun so far."""

    def wait(self, mark: Any) -> None:
        """Let what is computed from now on wait for the copies before a mark."""

    def settle(self) -> None:
        """Count the waits that are over; called where the device has been waited for anyway."""


class PlainCopies:
    """Copies at once: on a CPU, whose slots are in the same memory as its experts."""

    def __init__(self) -> None:
        self.stall_s = 0.0

    def copy(self, pairs: Iterable[Pair]) -> None:
        """Copy, and count the time."""
        began_s = time.perf_counter()
        try:
            for to, source in pairs:
                to.copy_(source)
        finally:
            self.stall_s += time.perf_counter() - began_s

    def mark(self) -> None:
        """Return nothing: all copies are done."""

    def wait(self, mark: None) -> None:
        """Return at once."""

    def settle(self) -> None:
        """Return at once: waits are counted as they happen."""


class StreamCopies:
    """Copies from pinned memory on a stream beside the one that computes; not yet run on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self.stall_s = 0.0
        self._stream = torch.cuda.Stream(device)
        self._waits: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def copy(self, pairs: Iterable[Pair]) -> None:
        """Queue copies behind what has been queued to be computed: it may read the targets."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for to, source in pairs:
                to.copy_(source, non_blocking=True)

    def mark(self) -> torch.cuda.Event:
        """Return an event after the copies queued so far."""
        event = torch.cuda.Event()
        event.record(self._stream)
        return event

    def wait(self, mark: torch.cuda.Event) -> None:
        """Hold the computing stream until an event, between two events that tell how long it was held."""
        stream = torch.cuda.current_stream()
        began, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        began.record(stream)
        stream.wait_event(mark)
        ended.record(stream)
        self._waits.append((began, ended))

    def settle(self) -> None:
        """Count the waits that are over, in seconds."""
        while self._waits and self._waits[0][1].query():
            began, ended = self._waits.pop(0)
            self.stall_s += began.elapsed_time(ended) / 1e3


def copies_for(device: torch.device) -> Copies:
    """Return what copies experts to a device."""
    return StreamCopies(device) if device.type == "cuda" else PlainCopies()
