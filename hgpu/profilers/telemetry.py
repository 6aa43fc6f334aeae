"""Reading the cards through NVML while an engine measures on them.

A thread of the measuring process reads power, clocks, temperature, throttle reasons and memory some
ten times a second; NVML's calls run outside the interpreter's lock, so a step waits for none of them.
XID errors are no readings: NVML hands them out as events only, and none are taken here. What they do
to an engine shows as a failed script.

Source: NVML API reference, "Device Queries"; names as in nvidia-ml-py 13.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from hgpu.core.errors import EngineError
from hgpu.profilers.telemetry_summary import CardTelemetry, Reading, summary_of

T = TypeVar("T")

INTERVAL_S = 0.1


@dataclass(frozen=True, slots=True)
class Card:
    """A card to read: NVML's handle, and a summary that holds its name and limits only."""

    handle: Any
    limits: CardTelemetry


class Sampler:
    """Readings of the cards since the run before; no cards give no telemetry and no thread."""

    def __init__(self, cards: Sequence[Card], interval_s: float = INTERVAL_S) -> None:
        self._cards = cards
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._readings: list[list[Reading]] = [[] for _ in cards]
        self._errors = [ecc_errors(card) for card in cards]
        self._lost: EngineError | None = None

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read in a thread until the block is left."""
        thread = threading.Thread(target=self._read_on, name="telemetry", daemon=True)
        if self._cards:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            if self._cards:
                thread.join()

    def begin(self) -> None:
        """Forget what was read before this run."""
        with self._lock:
            self._readings = [[] for _ in self._cards]

    def end(self) -> tuple[CardTelemetry, ...]:
        """Read once more, and return each card's summary since `begin`.

        Raises EngineError where a card is lost.
        """
        with self._lock:
            if self._lost is not None:
                raise self._lost
            self._read()
            before, self._errors = self._errors, [ecc_errors(card) for card in self._cards]
            rows = zip(self._cards, self._readings, before, self._errors, strict=True)
            return tuple(summary_of(card.limits, row, _more(old, new)) for card, row, old, new in rows)

    def _read_on(self) -> None:
        while self._lost is None and not self._stop.wait(self._interval_s):
            with self._lock:
                try:
                    self._read()
                except EngineError as error:
                    self._lost = error

    def _read(self) -> None:
        for card, readings in zip(self._cards, self._readings, strict=True):
            readings.append(read_card(card))


@contextmanager
def sampling(visible: str | None) -> Iterator[Sampler]:
    """Read the cards that CUDA_VISIBLE_DEVICES names, from here to the end of the block.

    `visible` None names none: on a CPU, NVML isn't asked for anything.
    """
    if visible is None:
        yield Sampler(())
        return
    import pynvml

    pynvml.nvmlInit()
    try:
        sampler = Sampler([_card(handle) for handle in _handles(visible)])
        with sampler.reading():
            yield sampler
    finally:
        pynvml.nvmlShutdown()


def read_card(card: Card) -> Reading:
    """Return one reading; raise EngineError where the card is lost."""
    import pynvml

    handle = card.handle
    milliwatts = _told(lambda: int(pynvml.nvmlDeviceGetPowerUsage(handle)))
    return Reading(
        power_w=None if milliwatts is None else milliwatts / 1000,
        sm_mhz=_told(lambda: int(pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM))),
        memory_mhz=_told(lambda: int(pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM))),
        temperature_c=_told(
            lambda: int(pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU))
        ),
        reasons=_reasons(handle),
        memory_used_bytes=_told(lambda: int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)),
    )


def ecc_errors(card: Card) -> int | None:
    """Return the uncorrected memory errors since the driver was loaded; None without ECC."""
    import pynvml

    kind, counter = pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC
    return _told(lambda: int(pynvml.nvmlDeviceGetTotalEccErrors(card.handle, kind, counter)))


def _reasons(handle: Any) -> int | None:
    """Return the bits of the clock event reasons, by their old name where the driver is older."""
    import pynvml

    found = _told(lambda: int(pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle)))
    if found is not None:
        return found
    return _told(lambda: int(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)))


def _handles(visible: str) -> Iterator[Any]:
    """Yield NVML's handle for each device of CUDA_VISIBLE_DEVICES: an index or (part of) a UUID."""
    import pynvml

    names = [name.strip() for name in visible.split(",") if name.strip()]
    for name in names:
        if name.isdecimal():
            yield pynvml.nvmlDeviceGetHandleByIndex(int(name))
        elif name.startswith("MIG-"):
            yield pynvml.nvmlDeviceGetHandleByUUID(name)
        else:
            every = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
            yield from (handle for handle in every if pynvml.nvmlDeviceGetUUID(handle).startswith(name))


def _card(handle: Any) -> Card:
    import pynvml

    milliwatts = _told(lambda: int(pynvml.nvmlDeviceGetEnforcedPowerLimit(handle)))
    limits = CardTelemetry(
        card=_told(lambda: f"GPU {pynvml.nvmlDeviceGetIndex(handle)}") or "MIG device",
        readings=0,
        power_limit_w=None if milliwatts is None else milliwatts / 1000,
        sm_limit_mhz=_told(lambda: int(pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_SM))),
        memory_limit_mhz=_told(lambda: int(pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_MEM))),
    )
    return Card(handle, limits)


def _told(ask: Callable[[], T]) -> T | None:
    """Return NVML's answer, None where it has none; raise EngineError where the card is lost."""
    import pynvml

    try:
        return ask()
    except pynvml.NVMLError as error:
        if error.value in (pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED):
            raise EngineError("a GPU is lost", f"NVML: {error}", "reset it, or leave it out") from error
        return None


def _more(before: int | None, now: int | None) -> int | None:
    return None if before is None or now is None else now - before
