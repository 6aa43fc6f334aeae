"""What `hgpu tune` reads from its options."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import yaml

from hgpu.core.errors import InputError
from hgpu.report.progress import Progress, progress_of
from hgpu.tuning.ranks import Ranks


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


def shown(ranks: Ranks) -> AbstractContextManager[Progress]:
    """Return how progress is shown: by the first of several processes alone."""
    return progress_of("tune") if ranks.leads else nullcontext(lambda *_: None)
