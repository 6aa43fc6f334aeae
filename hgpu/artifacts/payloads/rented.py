"""The offer that a row of a plan or a job rents."""

from typing import Protocol

from hgpu.core.offer import Market, Offer


class RentedRow(Protocol):
    """What the rows of plans and jobs say of their machines; `offer` is the name of one."""

    offer: str
    region: str
    market: str
    gpu: str
    gpus_per_machine: int
    price_date: str
    price_source: str


def offer_of(row: RentedRow, usd_per_hour: float) -> Offer:
    """Return the offer of a row at a price of the whole machine, which rows tell by pool."""
    cloud, _, instance_type = row.offer.partition("/")
    market = Market(row.market)
    return Offer(
        cloud,
        instance_type.removesuffix(f":{market}"),
        row.region,
        market,
        row.gpu,
        row.gpus_per_machine,
        usd_per_hour,
        row.price_date,
        row.price_source,
    )
