"""Prices and supply of AWS, asked from AWS: on-demand and spot prices, GPU machines and quotas of an account.

Types with GPUs are those of EC2's DescribeInstanceTypes; a price is that of shared Linux without software in
the Price List API, or the cheapest zone's in the history of spot prices. Quotas are in vCPUs.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from hgpu.catalog.gpus import resolve_gpu
from hgpu.core.errors import HgpuError, InputError
from hgpu.core.offer import Market, Offer

# (service, region) to a client of boto3.
Clients = Callable[[str, str], Any]

PRICING_REGION = "us-east-1"  # the Price List API answers for all regions from there
# AWS's names of GPUs that mean several types, told apart by their memory; others are names of the catalog.
SEVERAL = {"A100": ("A100-40GB", "A100-80GB"), "H100": ("H100-SXM",)}
MEMORY_OFF = 0.15  # of the catalog's: more, and it is a part of a card or another card
# Quotas of running vCPUs, by the first letters of a type's family.
QUOTAS = {
    (Market.ON_DEMAND, "p"): "L-417A185B",
    (Market.ON_DEMAND, "g"): "L-DB2E81BA",
    (Market.SPOT, "p"): "L-7212CCBC",
    (Market.SPOT, "g"): "L-3819A6DF",
}
PERMISSIONS = (
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeSpotPriceHistory",
    "pricing:GetProducts",
    "servicequotas:GetServiceQuota",
)


@dataclass(frozen=True, slots=True)
class Machine:
    """An instance type with GPUs of the catalog."""

    instance_type: str
    gpu: str
    gpu_count: int
    vcpus: int
    host_memory_gib: float


@dataclass(frozen=True, slots=True)
class Price:
    """USD for an hour of a machine, and where that stands."""

    usd_per_hour: float
    source: str


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The offers of a moment, and what was left out with the reason."""

    offers: tuple[Offer, ...]
    left_out: tuple[str, ...]


def refresh_aws(regions: Sequence[str], clients: Clients | None = None) -> Refreshed:
    """Ask AWS for the offers of some regions, with the account that boto3 finds.

    `available` is what the account's quota of vCPUs holds of a type alone; types of a family share it. Raises
    InputError without boto3 or credentials, HgpuError where AWS refuses, with the permissions it takes.
    """
    asked = clients or _boto3_clients()
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        found = [_region(region, asked) for region in regions]
    except NoCredentialsError as error:
        raise InputError(
            "AWS doesn't know you", str(error), "set up credentials, as with `aws configure`"
        ) from error
    except (BotoCoreError, ClientError) as error:
        raise HgpuError("AWS refused", str(error), f"it takes {', '.join(PERMISSIONS)}") from error
    offers = tuple(offer for row in found for offer in row.offers)
    left_out = tuple(reason for row in found for reason in row.left_out)
    if not offers:
        raise HgpuError(
            f"AWS has no offers in {', '.join(regions)}", "; ".join(left_out[:3]), "name other regions"
        )
    return Refreshed(offers, left_out)


def _boto3_clients() -> Clients:
    try:
        import boto3
    except ImportError as error:
        raise InputError(
            "boto3 isn't installed", "AWS is asked through it", "pip install 'hgpu[aws]'"
        ) from error
    return lambda service, region: boto3.client(service, region_name=region)


def _region(region: str, clients: Clients) -> Refreshed:
    ec2, pricing = clients("ec2", region), clients("pricing", PRICING_REGION)
    quotas = clients("service-quotas", region)
    now = datetime.now(UTC)
    machines, unknown = _machines(ec2)
    spot = _spot_prices(ec2, machines, now) if machines else {}
    limits = {key: _quota(quotas, code) for key, code in QUOTAS.items()} if machines else {}
    offers: list[Offer] = []
    left_out = [f"{region}: {reason}" for reason in unknown]
    for machine in machines:
        sold = {
            Market.ON_DEMAND: _on_demand_price(pricing, machine.instance_type, region),
            Market.SPOT: spot.get(machine.instance_type),
        }
        for market, price in sold.items():
            if price is None:
                left_out.append(f"{region}: {machine.instance_type} has no {market} price")
                continue
            vcpus = limits.get((market, machine.instance_type[0]))
            held = None if vcpus is None else int(vcpus // machine.vcpus)
            offers.append(_offer(machine, region, market, price, now.date(), held))
    return Refreshed(tuple(offers), tuple(left_out))


def _offer(
    machine: Machine, region: str, market: Market, price: Price, today: date, available: int | None
) -> Offer:
    return Offer(
        cloud="aws",
        instance_type=machine.instance_type,
        region=region,
        market=market,
        gpu=machine.gpu,
        gpu_count=machine.gpu_count,
        usd_per_hour=price.usd_per_hour,
        price_date=today.isoformat(),
        source=price.source,
        available=available,
        host_memory_gib=machine.host_memory_gib,
    )


def _machines(ec2: Any) -> tuple[list[Machine], list[str]]:
    """Return a region's machines with GPUs of the catalog, and why the others with GPUs aren't among them."""
    pages = ec2.get_paginator("describe_instance_types").paginate(
        Filters=[{"Name": "supported-usage-class", "Values": ["on-demand", "spot"]}]
    )
    rows = [row for page in pages for row in page["InstanceTypes"] if row.get("GpuInfo")]
    machines: list[Machine] = []
    unknown: list[str] = []
    for row in sorted(rows, key=lambda row: str(row["InstanceType"])):
        name = row["InstanceType"]
        cards = row["GpuInfo"]["Gpus"]
        gpu = _catalog_name(cards[0]) if len(cards) == 1 else None
        if gpu is None:
            told = ", ".join(f"{card['Count']} {card['Manufacturer']} {card['Name']}" for card in cards)
            unknown.append(f"{name} has GPUs that the catalog doesn't hold: {told}")
        else:
            vcpus, memory_gib = row["VCpuInfo"]["DefaultVCpus"], row["MemoryInfo"]["SizeInMiB"] / 2**10
            machines.append(Machine(name, gpu, int(cards[0]["Count"]), int(vcpus), memory_gib))
    return machines, unknown


def _catalog_name(card: Mapping[str, Any]) -> str | None:
    """Return the type whose name and memory are the card's; a part of a card has less memory."""
    names = SEVERAL.get(card["Name"], (card["Name"],))
    for name in names:
        try:
            gpu = resolve_gpu(name)
        except InputError:
            continue
        memory_bytes = card["MemoryInfo"]["SizeInMiB"] * 2**20
        if card["Manufacturer"] == "NVIDIA" and abs(memory_bytes / gpu.memory_bytes - 1) <= MEMORY_OFF:
            return gpu.name
    return None


def _on_demand_price(pricing: Any, instance_type: str, region: str) -> Price | None:
    wanted = {
        "instanceType": instance_type,
        "regionCode": region,
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
    }
    filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in wanted.items()]
    found = pricing.get_products(ServiceCode="AmazonEC2", Filters=filters)["PriceList"]
    prices = [
        float(dimension["pricePerUnit"]["USD"])
        for product in map(json.loads, found)
        for term in product["terms"].get("OnDemand", {}).values()
        for dimension in term["priceDimensions"].values()
        if dimension["unit"] == "Hrs"
    ]
    positive = [price for price in prices if price > 0]
    return Price(min(positive), "AWS Price List API, shared Linux") if positive else None


def _spot_prices(ec2: Any, machines: Sequence[Machine], now: datetime) -> dict[str, Price]:
    """Return the newest price of each type in its cheapest zone."""
    pages = ec2.get_paginator("describe_spot_price_history").paginate(
        InstanceTypes=[machine.instance_type for machine in machines],
        ProductDescriptions=["Linux/UNIX"],
        StartTime=now,  # the price that holds now was set before: AWS gives that one
    )
    newest: dict[tuple[str, str], Mapping[str, Any]] = {}
    for row in (row for page in pages for row in page["SpotPriceHistory"]):
        key = row["InstanceType"], row["AvailabilityZone"]
        if key not in newest or row["Timestamp"] > newest[key]["Timestamp"]:
            newest[key] = row
    cheapest: dict[str, Price] = {}
    for (instance_type, zone), row in sorted(newest.items()):
        price = Price(float(row["SpotPrice"]), f"EC2 spot price history, {zone}")
        known = cheapest.get(instance_type, price)
        cheapest[instance_type] = min(known, price, key=lambda of: of.usd_per_hour)
    return cheapest


def _quota(quotas: Any, code: str) -> float | None:
    """Return a quota in vCPUs; None where the account has none of that code."""
    try:
        return float(quotas.get_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]["Value"])
    except quotas.exceptions.NoSuchResourceException:
        return None
