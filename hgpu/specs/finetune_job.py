"""From the spec of a fine-tune to the nouns that a planner works with."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from hgpu.catalog.gpus import resolve_gpu
from hgpu.catalog.linears import linears_of, targeted
from hgpu.catalog.models import load_config, load_model
from hgpu.catalog.offers import load_offers, select_offers
from hgpu.core.errors import InputError
from hgpu.core.gpu import DType, MemoryTier
from hgpu.core.model import ModelSpec
from hgpu.core.offer import Offer
from hgpu.core.training import Linear, Method, Offload, Sharding, Variant
from hgpu.specs.finetune import TRAINED_DTYPES, FinetuneSpec

GIB = 2**30
GIGA = 1e9


@dataclass(frozen=True, slots=True)
class HostUnknown:
    """What isn't known of a machine's memory, and what to say in the spec."""

    reason: str
    fix: str


@dataclass(frozen=True, slots=True)
class Finetune:
    """A fine-tune to plan: the spec with its model, linear modules, number format and offers.

    `measured` holds the memory tiers of the machine that `host.profile` is of, local memory first.
    """

    spec: FinetuneSpec
    model: ModelSpec
    linears: tuple[Linear, ...]
    targets: tuple[Linear, ...]
    dtype: DType
    offers: tuple[Offer, ...]
    measured: tuple[MemoryTier, ...] = ()

    @property
    def name(self) -> str:
        """The model and how much it is trained, for titles and slugs."""
        tokens = self.spec.total_tokens
        size = f"{tokens / 1e9:.4g}B" if tokens >= 1e9 else f"{tokens / 1e6:.3g}M"
        return f"{Path(self.spec.model).name} {size} tokens"

    def mixed(self, method: Method) -> bool:
        """Tell whether a method keeps weights and Adam states in fp32 and computes in 16 bits."""
        return method is Method.FULL and self.spec.precision == "mixed" and self.dtype.bits == 16

    def micro_batches(self, dp: int) -> list[int]:
        """Return the sequences a pass that may be tried on each of `dp` copies, the most first."""
        share, rest = divmod(self.spec.batch, dp)
        if rest:
            return []
        wanted = self.spec.micro_batch or [2**power for power in range(20)] + [share]
        return sorted({count for count in wanted if count <= share and share % count == 0}, reverse=True)

    def variants(self) -> Iterator[Variant]:
        """Yield the ways to train that the spec lists, with every micro-batch of each."""
        spec = self.spec
        for method, tp, dp in product(spec.method, spec.tensor_parallel, spec.data_parallel):
            ranks = [0] if method is Method.FULL else spec.rank
            shardings = spec.sharding if dp > 1 else [Sharding.NONE]
            for rank, offload, checkpointing, sharding in product(
                ranks, spec.offload, spec.checkpointing, shardings
            ):
                if offload is not Offload.NONE and sharding is not shardings[0]:
                    continue  # offloading shards by itself
                for micro_batch in self.micro_batches(dp):
                    yield Variant(method, rank, offload, checkpointing, sharding, micro_batch, tp, dp)

    def host_tiers(self, offer: Offer, offload: Offload) -> list[MemoryTier] | HostUnknown:
        """Return a machine's memory for offloading, or what of it isn't known."""
        host = self.spec.host
        if self.measured:
            return self._measured_tiers(offload)
        capacity = round((offer.host_memory_gib or host.memory_gib or 0) * GIB)
        if host.bandwidth_gb_s is None:
            return HostUnknown(
                "how fast the host's memory is isn't known",
                "give host.bandwidth_gb_s, and host.memory_gib for machines whose memory isn't known either",
            )
        if not capacity:
            return HostUnknown("how much memory the host has isn't known", "give host.memory_gib")
        bandwidth = host.bandwidth_gb_s * GIGA
        tiers = [MemoryTier("DRAM", capacity, bandwidth, bandwidth)]
        if offload is Offload.TIERED:
            if not host.cxl_cards:
                return HostUnknown("there are no CXL cards to tier with", "give host.cxl_cards")
            size, speed = round((host.cxl_memory_gib or 0) * GIB), (host.cxl_bandwidth_gb_s or 0) * GIGA
            tiers += [MemoryTier(f"CXL {n}", size, speed, speed) for n in range(1, host.cxl_cards + 1)]
        return tiers

    def _measured_tiers(self, offload: Offload) -> list[MemoryTier] | HostUnknown:
        if offload is not Offload.TIERED:
            return [self.measured[0]]
        if len(self.measured) < 2:
            return HostUnknown("the machine of host.profile has one memory node", "allow offload: zero3")
        return list(self.measured)


def finetune_of(spec: FinetuneSpec) -> Finetune:
    """Return the fine-tune that a spec describes; reads the model's config and the prices.

    Raises InputError or UnknownName for whatever the spec names and can't be used.
    """
    model, config = load_model(spec.model, spec.dtype), load_config(spec.model)
    if model.is_moe:
        raise InputError(
            f"fine-tunes of {spec.model} can't be planned",
            f"it routes each token to {model.experts_per_token} of {model.experts} experts, and what "
            "activations take then isn't modelled",
            "choose a dense model; see `hgpu init offload` for serving a mixture of experts",
        )
    if model.weight_dtype not in TRAINED_DTYPES:
        raise InputError(
            f"{spec.model} is stored in {model.weight_dtype}, which can't be trained in",
            "the spec gives no dtype",
            f"set dtype to {', '.join(TRAINED_DTYPES[:-1])} or {TRAINED_DTYPES[-1]}",
        )
    if spec.context > model.max_context_tokens:
        raise InputError(
            f"context {spec.context} is more than {spec.model} can do",
            f"its context is {model.max_context_tokens} tokens",
            "lower context",
        )
    linears = linears_of(config, spec.model)
    adapted = set(spec.method) != {Method.FULL}
    targets = targeted(linears, spec.targets) if adapted else ()
    _require_ranks(spec, targets)
    offers = load_offers(spec.offers.book)
    gpus = [resolve_gpu(name).name for name in spec.gpus]
    chosen = select_offers(
        offers,
        gpus=gpus or [offer.gpu for offer in offers if not resolve_gpu(offer.gpu).is_cpu],
        clouds=spec.offers.clouds,
        markets=[str(market) for market in spec.offers.markets],
        regions=spec.offers.regions,
    )
    if not chosen:
        raise InputError(
            "nothing offers the GPUs of the spec",
            f"no offer of '{spec.offers.book}' has them in the chosen clouds, regions and markets",
            "widen offers or gpus, or give a price book of your own",
        )
    return Finetune(spec, model, linears, targets, model.weight_dtype, tuple(chosen))


def _require_ranks(spec: FinetuneSpec, targets: tuple[Linear, ...]) -> None:
    for target in targets:
        most = min(target.in_features, target.out_features)
        if max(spec.rank) > most:
            raise InputError(
                f"rank {max(spec.rank)} doesn't fit {target.name} "
                f"of {target.out_features} × {target.in_features}",
                "a rank is at most the smaller side",
                f"choose ranks of at most {most}, or other targets",
            )
