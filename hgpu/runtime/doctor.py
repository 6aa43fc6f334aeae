"""What the attached cards show NVML at this moment."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from hgpu.catalog.gpus import AttachedGpu, attached_gpus
from hgpu.profilers.telemetry_summary import names_of
from hgpu.runtime.faults import HARMLESS_REASONS, Kind, Symptom

T = TypeVar("T")
LEAST_POWER = 0.95  # of the default limit; less was set on purpose


@dataclass(frozen=True, slots=True)
class Examined:
    """A card and what it shows; `unknown` names what it doesn't tell."""

    card: AttachedGpu
    symptoms: tuple[Symptom, ...]
    unknown: tuple[str, ...]

    @property
    def name(self) -> str:
        """How symptoms call it."""
        return f"GPU {self.card.index}"


def examine() -> list[Examined]:
    """Return this machine's NVIDIA cards with their symptoms; none where there is no driver.

    XID errors aren't among them: NVML tells of those only while they happen. The kernel's log keeps them.
    """
    cards = attached_gpus()
    if not cards:
        return []
    import pynvml

    pynvml.nvmlInit()
    try:
        return [_examined(card) for card in cards]
    finally:
        pynvml.nvmlShutdown()


def _examined(card: AttachedGpu) -> Examined:
    import pynvml

    name = f"GPU {card.index}"
    handle = pynvml.nvmlDeviceGetHandleByIndex(card.index)
    symptoms: list[Symptom] = []
    unknown: list[str] = []
    for what, ask in CHECKS.items():
        try:
            symptoms += [Symptom(name, kind, value) for kind, value in ask(handle)]
        except pynvml.NVMLError as error:
            if error.value in (pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED):
                return Examined(card, (Symptom(name, Kind.LOST, str(error)),), ())
            unknown.append(what)
    return Examined(card, tuple(symptoms), tuple(unknown))


Told = Iterator[tuple[Kind, int | str]]


def _memory_errors(handle: Any) -> Told:
    import pynvml

    kind, counter = pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC
    errors = int(pynvml.nvmlDeviceGetTotalEccErrors(handle, kind, counter))
    if errors:
        yield Kind.ECC_UNCORRECTED, errors


def _correction(handle: Any) -> Told:
    import pynvml

    current, _pending = pynvml.nvmlDeviceGetEccMode(handle)
    if current == pynvml.NVML_FEATURE_DISABLED:
        yield Kind.ECC_OFF, 1


def _remapped_rows(handle: Any) -> Told:
    import pynvml

    _corrected, _uncorrected, pending, failed = pynvml.nvmlDeviceGetRemappedRows(handle)
    if pending:
        yield Kind.REMAP_PENDING, 1
    if failed:
        yield Kind.REMAP_FAILURE, 1


def _clocks(handle: Any) -> Told:
    import pynvml

    for reason in names_of([int(pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle))]):
        if reason not in HARMLESS_REASONS:
            yield Kind.THROTTLE, reason


def _link(handle: Any) -> Told:
    import pynvml

    now = int(pynvml.nvmlDeviceGetCurrPcieLinkWidth(handle))
    most = int(pynvml.nvmlDeviceGetMaxPcieLinkWidth(handle))
    if now < most:
        yield Kind.LINK_WIDTH, f"x{now} of x{most}"


def _power(handle: Any) -> Told:
    import pynvml

    limit_w = int(pynvml.nvmlDeviceGetEnforcedPowerLimit(handle)) / 1000
    default_w = int(pynvml.nvmlDeviceGetPowerManagementDefaultLimit(handle)) / 1000
    if limit_w < LEAST_POWER * default_w:
        yield Kind.POWER_LIMIT, f"{limit_w:.0f} of {default_w:.0f} W"


CHECKS: dict[str, Callable[[Any], Told]] = {
    "memory errors": _memory_errors,
    "error correction": _correction,
    "remapped rows": _remapped_rows,
    "clocks": _clocks,
    "PCIe link": _link,
    "power limit": _power,
}
