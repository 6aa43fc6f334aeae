"""Whether a machine's own memory holds the experts of its engines (mode `offload`)."""

from collections.abc import Sequence

from hgpu.core.model import ModelSpec
from hgpu.core.offer import Offer
from hgpu.core.operating_point import Mode, OperatingPoint

FOR_EXPERTS = 0.9  # of a machine's memory; the system and the engines need the rest


def holds_experts(offer: Offer, point: OperatingPoint, model: ModelSpec) -> bool:
    """Tell whether a machine has room for the experts of an engine on each of its GPUs.

    Every engine keeps its own. True in other modes, and where the memory isn't known.
    """
    if point.mode is not Mode.OFFLOAD or offer.host_memory_gib is None:
        return True
    engines = offer.gpu_count // point.tp
    return engines * model.all_expert_bytes <= FOR_EXPERTS * offer.host_memory_gib * 2**30


def too_small(offers: Sequence[Offer], point: OperatingPoint, model: ModelSpec) -> str:
    """Say why no offer holds the experts; empty where one does, or none has the GPUs at all."""
    able = [offer for offer in offers if offer.gpu == point.gpu and offer.gpu_count >= point.tp]
    if not able or any(holds_experts(offer, point, model) for offer in able):
        return ""
    told = ", ".join(f"{offer.name} has {offer.host_memory_gib:g} GiB" for offer in able[:3])
    more = f" and {len(able) - 3} more have too little" if len(able) > 3 else ""
    return (
        f"no machine's memory holds the {model.all_expert_bytes / 2**30:.1f} GiB of experts "
        f"that each engine keeps there: {told}{more}"
    )


def unknown_memory(offers: Sequence[Offer], points: Sequence[OperatingPoint]) -> list[str]:
    """Return the offers that are taken to hold the experts, as nothing says how much memory they have."""
    gpus = {point.gpu for point in points if point.mode is Mode.OFFLOAD}
    return sorted({offer.name for offer in offers if offer.gpu in gpus and offer.host_memory_gib is None})
