"""Calls at exact moments: a heap of moments behind one timer of the kernel.

The event loop's own timers round up to a whole millisecond (epoll counts in those), which would be
the largest error of a load generator. A Linux timer file descriptor has no such grain. Where there is none,
the event loop's timers serve.
"""

import asyncio
import ctypes
import heapq
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

_CLOCK_MONOTONIC = 1
_NONBLOCK = 0o4000
_CLOEXEC = 0o2000000
_ABSOLUTE = 1


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class Timetable:
    """Calls functions at moments of `time.monotonic`, those of one moment in the order they were given."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._armed_s = float("inf")
        self._timer = _open_timer()
        self._handle: asyncio.TimerHandle | None = None
        if self._timer is not None:
            self._libc, self._fd, self._spec = self._timer
            loop.add_reader(self._fd, self._ring)

    def at(self, moment_s: float, call: Callable[[], None]) -> None:
        """Call at a moment, at once where it is past; never before this returns."""
        self._number += 1
        heapq.heappush(self._due, (moment_s, self._number, call))
        if moment_s < self._armed_s:
            self._arm(moment_s)

    def close(self) -> None:
        """Forget what is due."""
        self._due.clear()
        if self._timer is not None:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._timer = None
        if self._handle is not None:
            self._handle.cancel()

    def _arm(self, moment_s: float) -> None:
        self._armed_s = moment_s
        if self._timer is None:
            if self._handle is not None:
                self._handle.cancel()
            self._handle = self._loop.call_later(max(0.0, moment_s - time.monotonic()), self._run_due)
            return
        moment_ns = max(1, int(moment_s * 1e9))  # 0 would disarm it
        self._spec.value.seconds, self._spec.value.nanoseconds = divmod(moment_ns, 10**9)
        self._libc.timerfd_settime(self._fd, _ABSOLUTE, ctypes.byref(self._spec), None)

    def _ring(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._fd, 8)
        self._run_due()

    def _run_due(self) -> None:
        self._armed_s = float("-inf")  # what the calls add is armed for below, once
        due = self._due
        while due and due[0][0] <= time.monotonic():
            heapq.heappop(due)[2]()
        self._armed_s = float("inf")
        if due:
            self._arm(due[0][0])


def _open_timer() -> tuple[Any, int, _TimerSpec] | None:
    """Return libc, a timer's file descriptor and room for its setting; None where there are none."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK | _CLOEXEC)
    return (libc, fd, _TimerSpec()) if fd >= 0 else None
