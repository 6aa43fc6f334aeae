"""What `hgpu tune` reads from its options."""

from collections.abc import Sequence
from typing import Any

import yaml

from hgpu.core.errors import InputError


def overrides(texts: Sequence[str]) -> dict[str, Any]:
    """Return fields and values of texts such as `method=lora`; values are read as YAML.

    Raises InputError for a text that isn't of that form.
    """
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        try:
            found[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(f"--set {text}: the value isn't YAML", str(error), "quote it") from error
        if not equals or not key.strip():
            raise InputError(f"--set {text}: no field and value", "it has no '='", "write --set method=lora")
    return found
