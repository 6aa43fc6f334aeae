"""What a card did while it measured: readings, and their summary over one run of a script.

What a card doesn't tell is None, never 0.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from hgpu.core.errors import ArtifactError

N = TypeVar("N", int, float)

IDLE = 1
# Bits of NVML's clock event reasons (called throttle reasons before driver 535).
REASONS = {
    IDLE: "idle",
    2: "applications clocks setting",
    4: "SW power cap",
    8: "HW slowdown",
    16: "sync boost",
    32: "SW thermal slowdown",
    64: "HW thermal slowdown",
    128: "HW power brake",
    256: "display clock setting",
    512: "board limit",
    1024: "reliability",
}


@dataclass(frozen=True, slots=True)
class Reading:
    """One card at one moment. `reasons` are the bits of why its clocks are what they are."""

    power_w: float | None = None
    sm_mhz: int | None = None
    memory_mhz: int | None = None
    temperature_c: int | None = None
    reasons: int | None = None
    memory_used_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class CardTelemetry:
    """One card over a run, or over many: means and extremes of its readings.

    `power_limit_w`, `sm_limit_mhz` and `memory_limit_mhz` are what the card may reach; the lowest
    clocks are those of readings in which it wasn't idle. `ecc_errors` counts the uncorrected
    memory errors since the run before.
    """

    card: str
    readings: int
    power_mean_w: float | None = None
    power_max_w: float | None = None
    power_limit_w: float | None = None
    sm_min_mhz: int | None = None
    sm_limit_mhz: int | None = None
    memory_min_mhz: int | None = None
    memory_limit_mhz: int | None = None
    temperature_max_c: int | None = None
    memory_used_max_bytes: int | None = None
    ecc_errors: int | None = None
    throttle: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class RunTelemetry:
    """The cards over one run of a script."""

    script: str
    repeat: int
    cards: tuple[CardTelemetry, ...]


def summary_of(card: CardTelemetry, readings: Sequence[Reading], ecc_errors: int | None) -> CardTelemetry:
    """Return `card`, which holds its name and limits, with what its readings come to."""
    busy = [reading for reading in readings if not (reading.reasons or 0) & IDLE]
    power_w = _known(reading.power_w for reading in readings)
    reasons = _known(reading.reasons for reading in readings)
    return replace(
        card,
        readings=len(readings),
        power_mean_w=sum(power_w) / len(power_w) if power_w else None,
        power_max_w=max(power_w, default=None),
        sm_min_mhz=min(_known(reading.sm_mhz for reading in busy), default=None),
        memory_min_mhz=min(_known(reading.memory_mhz for reading in busy), default=None),
        temperature_max_c=max(_known(reading.temperature_c for reading in readings), default=None),
        memory_used_max_bytes=max(_known(reading.memory_used_bytes for reading in readings), default=None),
        ecc_errors=ecc_errors,
        throttle=names_of(reasons) if reasons else None,
    )


def names_of(masks: Iterable[int]) -> tuple[str, ...]:
    """Return the names of all bits that are set in any of the masks, in the order of the bits."""
    union = 0
    for mask in masks:
        union |= mask
    bits = (1 << place for place in range(union.bit_length()))
    return tuple(REASONS.get(bit, f"reason {bit:#x}") for bit in bits if union & bit)


def over_runs(cards: Sequence[CardTelemetry]) -> CardTelemetry:
    """Return the summary of one card over several runs; means are weighted by their readings."""
    weighted = [(c.power_mean_w, c.readings) for c in cards if c.power_mean_w is not None and c.readings]
    names = [card.throttle for card in cards if card.throttle is not None]
    return replace(
        cards[-1],
        readings=sum(card.readings for card in cards),
        power_mean_w=sum(w * n for w, n in weighted) / sum(n for _, n in weighted) if weighted else None,
        power_max_w=max(_known(card.power_max_w for card in cards), default=None),
        sm_min_mhz=min(_known(card.sm_min_mhz for card in cards), default=None),
        memory_min_mhz=min(_known(card.memory_min_mhz for card in cards), default=None),
        temperature_max_c=max(_known(card.temperature_max_c for card in cards), default=None),
        memory_used_max_bytes=max(_known(card.memory_used_max_bytes for card in cards), default=None),
        ecc_errors=sum(errors) if (errors := _known(card.ecc_errors for card in cards)) else None,
        throttle=tuple(dict.fromkeys(name for row in names for name in row)) if names else None,
    )


def by_card(runs: Iterable[RunTelemetry]) -> list[CardTelemetry]:
    """Return each card's summary over all runs."""
    cards: dict[str, list[CardTelemetry]] = {}
    for run in runs:
        for card in run.cards:
            cards.setdefault(card.card, []).append(card)
    return [over_runs(rows) for _, rows in sorted(cards.items())]


def card_from(row: Mapping[str, Any]) -> CardTelemetry:
    """Return what `asdict` of a card gave, back from JSON; unknown fields raise TypeError."""
    names = row.get("throttle")
    return CardTelemetry(**{**row, "throttle": None if names is None else tuple(names)})


def to_json(runs: Iterable[RunTelemetry]) -> bytes:
    """Return the runs as a JSON document, sorted."""
    rows = [asdict(run) for run in sorted(runs, key=lambda run: (run.script, run.repeat))]
    return json.dumps({"runs": rows}, indent=1, allow_nan=False).encode() + b"\n"


def from_json(content: bytes) -> list[RunTelemetry]:
    """Return the runs in a JSON document, or raise ArtifactError."""
    try:
        return [
            RunTelemetry(row["script"], row["repeat"], tuple(card_from(card) for card in row["cards"]))
            for row in json.loads(content)["runs"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError("the profile's telemetry can't be read", str(error), "profile again") from error


def _known(values: Iterable[N | None]) -> list[N]:
    return [value for value in values if value is not None]
