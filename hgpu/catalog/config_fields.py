"""Reading typed fields of a `config.json`, with errors that name the model and the field.

A field that is null counts as absent, as it does in transformers.
"""

from collections.abc import Mapping
from typing import Any

from hgpu.core.errors import InputError

Config = Mapping[str, Any]

LARGEST_COUNT = 2**40


def field_error(name: str, key: str, why: str, fix: str = "") -> InputError:
    """Build the error for field `key` in the config of model `name`."""
    what = f"config.json of '{name}': field '{key}' can't be used"
    return InputError(what, why, fix or f"correct '{key}' or take config.json from the model's repository")


def optional_count(config: Config, key: str, name: str, default: int, minimum: int = 1) -> int:
    """Return the whole number in `key`, or `default` where it is absent."""
    value = config.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int):
        raise field_error(name, key, f"it must be a whole number, not {value!r}")
    if not minimum <= value <= LARGEST_COUNT:
        raise field_error(
            name, key, f"it must be at least {minimum} and no absurdly large number, not {value}"
        )
    return value


def count(config: Config, key: str, name: str) -> int:
    """Return the positive whole number that must stand in `key`."""
    if config.get(key) is None:
        why = "it is missing; a decoder-only transformer needs it"
        raise field_error(name, key, why, f"add '{key}' or use a model of a supported architecture")
    return optional_count(config, key, name, default=0)


def flag(config: Config, key: str, name: str, default: bool) -> bool:
    """Return the boolean in `key`, or `default` where it is absent."""
    value = config.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise field_error(name, key, f"it must be true or false, not {value!r}")
    return value


def text(config: Config, key: str, name: str) -> str:
    """Return the string in `key`, or an empty one where it is absent."""
    value = config.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise field_error(name, key, f"it must be a string, not {value!r}")
    return value


def items(config: Config, key: str, name: str, kind: type) -> list[Any]:
    """Return the list in `key`, all of type `kind`, or an empty one where it is absent."""
    value = config.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(type(item) is kind for item in value):
        raise field_error(name, key, f"it must be a list of {kind.__name__}, not {value!r}")
    return value


def section(config: Config, key: str, name: str) -> dict[str, Any]:
    """Return the object in `key`, or an empty one where it is absent."""
    value = config.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise field_error(name, key, f"it must be an object, not {value!r}")
    return value
