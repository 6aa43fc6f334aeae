"""Stand-ins for NVML's functions: two cards, one of them a small one that tells less."""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

import pynvml

H100_UUID = "GPU-8f6d2c9a-0000-4000-8000-000000000000"
SMALL_UUID = "GPU-1e2d3c4b-0000-4000-8000-000000000001"


@dataclass(slots=True)
class NvmlCard:
    """An H100 SXM at work. What is None isn't supported."""

    index: int = 0
    uuid: str = H100_UUID
    milliwatts: int | None = 612_345
    limit_milliwatts: int | None = 700_000
    clocks_mhz: dict[int, int] | None = field(
        default_factory=lambda: {pynvml.NVML_CLOCK_SM: 1755, pynvml.NVML_CLOCK_MEM: 2619}
    )
    limits_mhz: dict[int, int] | None = field(
        default_factory=lambda: {pynvml.NVML_CLOCK_SM: 1980, pynvml.NVML_CLOCK_MEM: 2619}
    )
    celsius: int | None = 61
    reasons: int | None = 0
    used_bytes: int | None = 72 * 2**30
    ecc: int | None = 0
    old_driver: bool = False
    lost: bool = False
    asked: int = 0

    def tell(self, value: object) -> object:
        self.asked += 1
        if self.lost:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        if value is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return value

    def event_reasons(self) -> object:
        if self.old_driver:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
        return self.tell(self.reasons)


def small_card() -> NvmlCard:
    """A card of a workstation: no ECC, no power reading, no reasons."""
    return NvmlCard(1, SMALL_UUID, milliwatts=None, limit_milliwatts=None, reasons=None, ecc=None)


def install(replace: Callable[[object, str, object], None], cards: list[NvmlCard]) -> None:
    """Put the stand-ins in place of the module's functions; a handle is a card."""

    def ecc_of(card: NvmlCard, kind: int, counter: int) -> object:
        asked = (kind, counter)
        assert asked == (pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC)
        return card.tell(card.ecc)

    def temperature_of(card: NvmlCard, sensor: int) -> object:
        assert sensor == pynvml.NVML_TEMPERATURE_GPU
        return card.tell(card.celsius)

    functions = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: len(cards),
        "nvmlDeviceGetHandleByIndex": lambda index: cards[index],
        "nvmlDeviceGetHandleByUUID": lambda uuid: next(card for card in cards if card.uuid == uuid),
        "nvmlDeviceGetIndex": lambda card: card.index,
        "nvmlDeviceGetUUID": lambda card: card.uuid,
        "nvmlDeviceGetPowerUsage": lambda card: card.tell(card.milliwatts),
        "nvmlDeviceGetEnforcedPowerLimit": lambda card: card.tell(card.limit_milliwatts),
        "nvmlDeviceGetClockInfo": lambda card, clock: card.tell(card.clocks_mhz and card.clocks_mhz[clock]),
        "nvmlDeviceGetMaxClockInfo": lambda card, clock: card.tell(
            card.limits_mhz and card.limits_mhz[clock]
        ),
        "nvmlDeviceGetTemperature": temperature_of,
        "nvmlDeviceGetMemoryInfo": lambda card: card.tell(
            card.used_bytes and SimpleNamespace(used=card.used_bytes)
        ),
        "nvmlDeviceGetTotalEccErrors": ecc_of,
        "nvmlDeviceGetCurrentClocksEventReasons": lambda card: card.event_reasons(),
        "nvmlDeviceGetCurrentClocksThrottleReasons": lambda card: card.tell(card.reasons),
    }
    for name, function in functions.items():
        getattr(pynvml, name)  # the real module has it
        replace(pynvml, name, function)
