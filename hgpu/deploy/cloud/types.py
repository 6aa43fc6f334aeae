"""The machines that `--on` names, with the price book's facts about them."""

from collections.abc import Sequence
from dataclasses import dataclass

from hgpu.catalog.gpus import resolve_gpu
from hgpu.core.errors import InputError, UnknownName
from hgpu.core.offer import Market, Offer
from hgpu.deploy.ec2.options import require_region

CLOUDS = ("aws",)


@dataclass(frozen=True, slots=True)
class CloudType:
    """An instance type in a region, on demand: a spot machine may be gone in the middle of a profile."""

    instance_type: str
    region: str
    gpu: str
    gpu_count: int
    usd_per_hour: float
    price_date: str


def cloud_types(words: Sequence[str], offers: Sequence[Offer], region: str | None) -> list[CloudType]:
    """Return the types that words as `aws:g6.xlarge,aws:g5.xlarge` name, in their order.

    Raises InputError or UnknownName for what the price book doesn't sell on demand, or sells in several
    regions where `region` doesn't choose one.
    """
    names = [name.strip() for word in words for name in word.split(",") if name.strip()]
    if not names or len(set(names)) < len(names):
        raise InputError(
            f"--on names {'a machine twice' if names else 'no machine'}",
            f"it is '{','.join(words)}'",
            "name each instance type once, as in aws:g6.xlarge,aws:g5.xlarge",
        )
    return [_type(name, offers, region) for name in names]


def _type(word: str, offers: Sequence[Offer], region: str | None) -> CloudType:
    cloud, colon, name = word.partition(":")
    if not colon:
        raise InputError(
            f"'{word}' names no cloud", "a machine is CLOUD:TYPE", f"write aws:{word}, for one of AWS"
        )
    if cloud not in CLOUDS:
        raise UnknownName("cloud to profile in", cloud, CLOUDS)
    sold = [o for o in offers if o.cloud == cloud and o.market is Market.ON_DEMAND]
    mine = [o for o in sold if o.instance_type == name]
    if not mine:
        raise UnknownName(
            f"instance type of {cloud} in the price book", name, {o.instance_type for o in sold}
        )
    regions = [o.region for o in mine]
    if region is not None and region not in regions:
        raise UnknownName(f"region with a price of {name}", region, regions)
    if region is None and len(regions) > 1:
        raise InputError(f"{name} is sold in several regions", ", ".join(regions), "choose one with --region")
    offer = next(o for o in mine if region in (None, o.region))
    if resolve_gpu(offer.gpu).vendor != "nvidia":
        raise InputError(
            f"{name} has {offer.gpu}",
            "the image of vLLM that is started there is for NVIDIA's GPUs",
            "name machines with NVIDIA GPUs",
        )
    return CloudType(
        name, require_region(offer.region), offer.gpu, offer.gpu_count, offer.usd_per_hour, offer.price_date
    )
