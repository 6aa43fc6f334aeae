"""What `hgpu profile` calls for a spec of kind finetune: measure the activations of each way to train."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from hgpu.artifacts.payloads.activations import ActivationRow, ActivationsPayload
from hgpu.artifacts.reuse import save_once
from hgpu.artifacts.store import Artifact, Draft
from hgpu.catalog.models import load_config
from hgpu.core.provenance import Provenance
from hgpu.core.training import Method, Variant
from hgpu.latency.training_select import KIND, way_key
from hgpu.profilers.activations import Asked, measure_activations
from hgpu.profilers.shrunk import NARROWEST
from hgpu.report.progress import progress_of
from hgpu.specs.finetune import FinetuneSpec
from hgpu.specs.finetune_job import Finetune, finetune_of
from hgpu.specs.load import load_kind


def profile_activations(path: Path, root: Path) -> Artifact[ActivationsPayload]:
    """Measure the activations of every method, rank and checkpointing of a spec, and keep them."""
    finetune = finetune_of(load_kind(path, FinetuneSpec))
    config = load_config(finetune.spec.model)
    variants = list(_told_apart(finetune))
    rows = []
    with progress_of("activations") as progress:
        for number, variant in enumerate(variants):
            method, rank, targets, checkpointing, mixed = way_key(finetune, variant)
            asked = Asked(
                config,
                finetune.model.name,
                finetune.dtype,
                checkpointing,
                mixed,
                _adapting(finetune, variant),
                _narrowest(finetune, variant),
            )
            found = measure_activations(asked)
            rows.append(
                ActivationRow(
                    method=method,
                    rank=rank,
                    targets=list(targets),
                    checkpointing=checkpointing,
                    mixed=mixed,
                    activations=found,
                )
            )
            progress(number + 1, len(variants), variant.name)
    payload = ActivationsPayload(
        model=finetune.model,
        model_source=finetune.spec.model,
        dtype=finetune.dtype,
        rows=rows,
        provenance=Provenance.MEASURED,
    )
    return save_once(root, Draft(KIND, f"{Path(finetune.spec.model).name}-{finetune.dtype}", payload))


def _told_apart(finetune: Finetune) -> Iterator[Variant]:
    """Yield one variant of each way to train that activations tell apart."""
    seen = set()
    for variant in finetune.variants():
        key = way_key(finetune, variant)
        if key not in seen:
            seen.add(key)
            yield replace(variant, micro_batch=1, tp=1, dp=1)


def _adapting(finetune: Finetune, variant: Variant) -> Callable[[Any], Any] | None:
    """Return what puts the adapters of `hgpu tune` into a copy; None for a full fine-tune."""
    if variant.method is Method.FULL:
        return None
    from hgpu.tuning.job import TuneJob
    from hgpu.tuning.methods import adapt

    spec = finetune.spec
    job = TuneJob(
        model=spec.model,
        dtype=finetune.dtype,
        precision=spec.precision,
        method=variant.method,
        rank=variant.rank,
        targets=tuple(spec.targets),
        alpha=spec.alpha or 2.0 * variant.rank,
        freeze_share=spec.freeze_share,
        rank_allocation="uniform",  # the mean rank counts: what is saved is linear in it
        context=spec.context,
        batch=spec.batch,
        micro_batch=1,
        steps=spec.total_steps,
        checkpointing=variant.checkpointing,
        data="",
        learning_rate=spec.learning_rate,
        weight_decay=spec.weight_decay,
        warmup_steps=spec.warmup_steps,
        seed=spec.seed,
        save_every_steps=spec.total_steps,
    )
    return lambda model: adapt(model, job)[0]


def _narrowest(finetune: Finetune, variant: Variant) -> int:
    """Return the width of a copy's heads: the narrowest whose linears are as wide as the rank."""
    if variant.method is Method.FULL:
        return NARROWEST
    heads = finetune.model.attention_heads
    head_dim = next(t.out_features for t in finetune.linears if t.name == "q_proj") // heads
    narrow = min(min(t.in_features, t.out_features) for t in finetune.targets) / head_dim
    return NARROWEST * math.ceil(variant.rank / (NARROWEST * narrow))
