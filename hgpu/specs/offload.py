"""The `offload:` section of a spec: the expert caches to choose from in mode `offload`."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Annotated

from pydantic import Field

from hgpu.artifacts.manifest import Strict
from hgpu.core.errors import InputError
from hgpu.core.experts import ExpertCache, ExpertPolicy
from hgpu.core.model import ModelSpec
from hgpu.core.operating_point import EngineOptions, Mode, OperatingPoint

Fraction = Annotated[float, Field(gt=0, le=1)]


class OffloadSpec(Strict):
    """What part of the experts may have slots on a device, under which policies, at which batch limits.

    `max_num_seqs` takes the place of the engine's: the more sequences decode together, the more experts a
    step needs. `routing` is a routing artifact of the model (or a path to one) to replay the caches on;
    without one, tokens are taken to go to all experts alike.
    """

    cache: Annotated[list[Fraction], Field(min_length=1)] = Field(default=[0.25, 0.5])
    policies: Annotated[list[ExpertPolicy], Field(min_length=1)] = Field(default=[ExpertPolicy.PINNED_LFU])
    max_num_seqs: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)] = Field(default=[4, 32])
    wide: bool = True
    routing: str | None = None


def offload_points(
    spec: OffloadSpec, model: ModelSpec, gpus: Sequence[str], degrees: Sequence[int], engine: EngineOptions
) -> list[OperatingPoint]:
    """Return the operating points in mode `offload` of GPU types, on one GPU an engine.

    Raises InputError for a model without experts, for a cache that can't hold those of one token, and where
    `degrees` doesn't have 1: the cache fills the slots of one device.
    """
    if 1 not in degrees:
        raise InputError(
            "mode 'offload' runs an engine on one GPU, and tensor_parallel doesn't have 1",
            "the expert cache fills the slots of one device",
            "add 1 to tensor_parallel, or leave 'offload' out of modes",
        )
    if not model.is_moe:
        raise InputError(
            f"mode 'offload' keeps experts in host memory, and {model.name} has none",
            "its weights are read whole for every token",
            "leave 'offload' out of modes",
        )
    caches = [
        ExpertCache(fraction, policy, wide=spec.wide)
        for fraction, policy in product(sorted(set(spec.cache)), dict.fromkeys(spec.policies))
    ]
    for cache in caches:
        cache.slots(model.experts, model.experts_per_token)
    limits = sorted({min(seqs, engine.max_num_batched_tokens) for seqs in spec.max_num_seqs})
    return [
        OperatingPoint(
            gpu, 1, Mode.OFFLOAD, model.weight_dtype, replace(engine, max_num_seqs=seqs), experts=cache
        )
        for gpu, cache, seqs in product(gpus, caches, limits)
    ]
