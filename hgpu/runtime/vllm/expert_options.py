"""What the expert cache is told: a JSON object of vLLM's `--additional-config`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from hgpu.core.errors import InputError, UnknownName
from hgpu.core.experts import PINNING, ExpertCache, ExpertPolicy, Prefetch

KEY = "hgpu_experts"
Choice = TypeVar("Choice", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class ExpertOptions:
    """Slots a layer, as a number, each layer's own, or a fraction of the experts; and what decides on them.

    `hints` is a file that `hgpu.latency.hints_file` wrote. Raises InputError for what doesn't go together.
    """

    slots: int | tuple[int, ...] | None = None
    fraction: float | None = None
    policy: ExpertPolicy = ExpertPolicy.PINNED_LFU
    prefetch: Prefetch = Prefetch.NONE
    wide: bool = True
    hints: Path | None = None

    def __post_init__(self) -> None:
        if (self.slots is None) == (self.fraction is None):
            raise InputError(
                f"{KEY} says nothing, or twice, how many slots a layer has",
                "they are `slots` (a number, or one for each layer) or a `fraction` of the experts",
                "give one of the two",
            )
        if self.fraction is not None:
            ExpertCache(self.fraction)
        needing = self.policy in PINNING or self.prefetch is Prefetch.TOKEN
        if needing and self.hints is None:
            raise InputError(
                f"{KEY} has no hints for policy '{self.policy}' with prefetch '{self.prefetch}'",
                "what is pinned, and a table from tokens to experts, come from a routing trace",
                "give `hints`, or policy 'lfu' or 'lru' without prefetch 'token'",
            )

    def slots_of(self, layer: int, experts: int, per_token: int) -> int:
        """Return the slots of a layer. Raises InputError where they aren't given, or are too few or many."""
        if self.fraction is not None:
            return ExpertCache(self.fraction).slots(experts, per_token)
        if isinstance(self.slots, int):
            return self.slots
        assert self.slots is not None
        if layer >= len(self.slots):
            raise InputError(
                f"`slots` of {KEY} are those of {len(self.slots)} layers", "the model has more with experts"
            )
        return self.slots[layer]


def expert_options_of(additional_config: object) -> ExpertOptions | None:
    """Read the options from vLLM's additional configuration; None without the key.

    Raises InputError for what isn't known, and for values of another kind.
    """
    rows = additional_config.get(KEY) if isinstance(additional_config, Mapping) else None
    if rows is None:
        return None
    known = {field.name for field in fields(ExpertOptions)}
    if not isinstance(rows, Mapping):
        raise InputError(f"{KEY} isn't an object", f"it is {rows!r}")
    if unknown := sorted(map(str, rows.keys() - known)):
        raise InputError(
            f"{KEY} has unknown options: {', '.join(unknown)}", f"known are {', '.join(sorted(known))}"
        )
    return ExpertOptions(**{name: _READ[name](name, value) for name, value in rows.items()})


def expert_rows(cache: ExpertCache, hints: Path | None = None) -> dict[str, Any]:
    """Return a planned cache as the options that the engine reads."""
    size = {"slots": list(cache.layer_slots)} if cache.layer_slots else {"fraction": cache.fraction}
    rows: dict[str, Any] = size | {
        "policy": str(cache.policy),
        "prefetch": str(cache.prefetch),
        "wide": cache.wide,
    }
    return rows | ({"hints": str(hints)} if hints is not None else {})


def expert_args(cache: ExpertCache, hints: Path | None = None) -> list[str]:
    """Return the arguments of `vllm serve` that switch a planned cache on."""
    return ["--enforce-eager", "--additional-config", json.dumps({KEY: expert_rows(cache, hints)})]


def _slots(name: str, value: object) -> int | tuple[int, ...]:
    each = value if isinstance(value, list | tuple) else [value]
    numbers = [one for one in each if isinstance(one, int) and not isinstance(one, bool) and one > 0]
    if not numbers or len(numbers) < len(each):
        raise InputError(f"{name} of {KEY} is {value!r}", "it is a number above 0, or one for each layer")
    return tuple(numbers) if isinstance(value, list | tuple) else numbers[0]


def _fraction(name: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InputError(f"{name} of {KEY} is {value!r}", "it is a number above 0 and at most 1")
    return float(value)


def _wide(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InputError(f"{name} of {KEY} is {value!r}", "it is true or false")
    return value


def _hints(name: str, value: object) -> Path:
    if not isinstance(value, str) or not value:
        raise InputError(f"{name} of {KEY} is {value!r}", "it is the path of a file")
    return Path(value)


def _choice(kind: type[Choice], value: object) -> Choice:
    if value not in list(kind):
        raise UnknownName(f"{kind.__name__} of {KEY}", str(value), list(kind))
    return kind(str(value))


_READ: dict[str, Any] = {
    "slots": _slots,
    "fraction": _fraction,
    "policy": lambda name, value: _choice(ExpertPolicy, value),
    "prefetch": lambda name, value: _choice(Prefetch, value),
    "wide": _wide,
    "hints": _hints,
}
