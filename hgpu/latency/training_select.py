"""Which activations a plan uses: those that were measured for the model, else the closed form."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hgpu.artifacts.payloads.activations import ActivationsPayload
from hgpu.artifacts.resolve import entries, resolve, under_ci
from hgpu.artifacts.store import Artifact, load
from hgpu.core.errors import InputError
from hgpu.core.training import Activations, Method, Variant
from hgpu.latency.training_activations import estimated_activations
from hgpu.specs.finetune_job import Finetune

KIND = "activations"
Measured = Artifact[ActivationsPayload]


@dataclass(frozen=True, slots=True)
class ActivationChoice:
    """What was measured of a fine-tune's model in its format, the first that has a row counts."""

    measured: tuple[Measured, ...]

    def of(self, finetune: Finetune, variant: Variant) -> Activations:
        """Return the activations of a variant."""
        wanted = way_key(finetune, variant)
        for artifact in self.measured:
            for row in artifact.payload.rows:
                if (row.method, row.rank, tuple(row.targets), row.checkpointing, row.mixed) == wanted:
                    return row.activations
        return estimated_activations(
            finetune.model,
            finetune.linears,
            finetune.targets,
            finetune.dtype,
            variant,
            finetune.mixed(variant.method),
        )


def way_key(finetune: Finetune, variant: Variant) -> tuple[str, int, tuple[str, ...], bool, bool]:
    """Return method, rank, targets, checkpointing and mixed: what activations depend on beside the model."""
    adapted = variant.method is not Method.FULL
    targets = tuple(sorted(target.name for target in finetune.targets)) if adapted else ()
    return str(variant.method), variant.rank, targets, variant.checkpointing, finetune.mixed(variant.method)


def select_activations(
    root: Path, finetune: Finetune, refs: Sequence[str] = (), estimate: bool = False
) -> ActivationChoice:
    """Return the measurements that `refs` name, or all of the model and format under `root`, newest first.

    Under CI=true nothing is taken that isn't named. Those of another model or format are passed over.
    """
    if estimate:
        return ActivationChoice(())
    found: list[Measured] = [resolve(root, ref, KIND) for ref in refs]
    if not refs and not under_ci():
        found = [load(entry.path) for entry in entries(root, KIND)]
    wanted = (finetune.model.digest, finetune.dtype)
    return ActivationChoice(tuple(a for a in found if (a.payload.model.digest, a.payload.dtype) == wanted))


def require_used(root: Path, refs: Sequence[str], choices: Iterable[ActivationChoice]) -> None:
    """Raise InputError for named activations of a model and format that no fine-tune has."""
    used = {artifact.digest for choice in choices for artifact in choice.measured}
    for ref in refs:
        artifact: Measured = resolve(root, ref, KIND)
        if artifact.digest not in used:
            raise InputError(
                f"activations {artifact.short} are of another model or format",
                f"they were measured on {artifact.payload.model_source} in {artifact.payload.dtype}, "
                f"config {artifact.payload.model.digest[:12]}",
                "leave --activations out, or measure them: hgpu profile SPEC",
            )
