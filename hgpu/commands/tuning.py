"""What `hgpu tune` reads from its options."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import yaml

from hgpu.artifacts.manifest import InputRef
from hgpu.artifacts.resolve import resolve
from hgpu.core.errors import InputError
from hgpu.deploy.render.tune import chosen_spec
from hgpu.report.output import note
from hgpu.report.progress import Progress, progress_of
from hgpu.specs.finetune import FinetuneSpec
from hgpu.specs.load import load_kind, load_mapping
from hgpu.tuning.ranks import Ranks

FILES = (".yaml", ".yml")


def read_what(what: str, given: dict[str, Any], results: Path) -> tuple[FinetuneSpec, list[InputRef]]:
    """Return the spec in a file, or that of a planned job with its choice, and the plan that it is of.

    `given` fields are put in. Raises InputError and ArtifactError for what can't be read.
    """
    path = Path(what)
    if path.suffix in FILES or path.is_file():
        return load_kind(path, FinetuneSpec, given), []
    plan = resolve(results, what, "job")
    variant, data = plan.payload.choice.variant.name, plan.payload.spec.get("data")
    note(f"training what plan {plan.short} chose: {variant}")
    spec = load_mapping(f"plan {plan.short}", chosen_spec(plan.payload, data), FinetuneSpec, given)
    return spec, [InputRef(role="plan", kind="job", digest=plan.digest)]


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
