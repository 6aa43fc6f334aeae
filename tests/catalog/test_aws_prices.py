"""Prices from AWS, against botocore's stubs: its models check what is asked and what is answered."""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import ANY, Stubber
from tests_types import Run

from hgpu.catalog.aws_prices import QUOTAS, refresh_aws
from hgpu.catalog.offers import load_offers
from hgpu.catalog.price_book import write_book
from hgpu.catalog.refresh import refreshed_book
from hgpu.core.errors import HgpuError, InputError
from hgpu.core.offer import Market

REGION = "us-east-1"
NOW = datetime(2026, 11, 25, tzinfo=UTC)


def instance(name: str, vcpus: int, *cards: tuple[str, int, int], maker: str = "NVIDIA") -> dict[str, Any]:
    gpus = [
        {"Name": gpu, "Manufacturer": maker, "Count": count, "MemoryInfo": {"SizeInMiB": mib}}
        for gpu, count, mib in cards
    ]
    row: dict[str, Any] = {
        "InstanceType": name,
        "VCpuInfo": {"DefaultVCpus": vcpus},
        "MemoryInfo": {"SizeInMiB": vcpus * 4096},
    }
    return row | ({"GpuInfo": {"Gpus": gpus}} if gpus else {})


TYPES = [
    instance("p4de.24xlarge", 96, ("A100", 8, 81920)),
    instance("p4d.24xlarge", 96, ("A100", 8, 40960)),
    instance("g6.xlarge", 4, ("L4", 1, 22888)),
    instance("g6f.large", 2, ("L4", 1, 2861)),
    instance("g4ad.xlarge", 4, ("Radeon Pro V520", 1, 8192), maker="AMD"),
    instance("m7i.large", 2),
]


def product(usd: float, unit: str = "Hrs") -> str:
    dimension = {"x.y.z": {"unit": unit, "pricePerUnit": {"USD": f"{usd:.10f}"}}}
    return json.dumps({"terms": {"OnDemand": {"x.y": {"priceDimensions": dimension}}}})


class Aws:
    """Clients whose answers are set; each stub fails where it is asked for something else."""

    def __init__(self) -> None:
        keys = {"aws_access_key_id": "none", "aws_secret_access_key": "none", "region_name": REGION}
        self.clients = {name: boto3.client(name, **keys) for name in ("ec2", "pricing", "service-quotas")}
        self.stubs = {name: Stubber(client) for name, client in self.clients.items()}
        for stub in self.stubs.values():
            stub.activate()

    def __call__(self, service: str, region: str) -> Any:
        assert region == REGION
        return self.clients[service]

    def machines(self, *rows: dict[str, Any]) -> None:
        usage = [{"Name": "supported-usage-class", "Values": ["on-demand", "spot"]}]
        self.stubs["ec2"].add_response(
            "describe_instance_types", {"InstanceTypes": list(rows)}, {"Filters": usage}
        )

    def spot(self, *rows: tuple[str, str, str, int]) -> None:
        history = [
            {"InstanceType": t, "AvailabilityZone": z, "SpotPrice": p, "Timestamp": NOW - timedelta(hours=h)}
            for t, z, p, h in rows
        ]
        asked = {"InstanceTypes": ANY, "ProductDescriptions": ["Linux/UNIX"], "StartTime": ANY}
        self.stubs["ec2"].add_response("describe_spot_price_history", {"SpotPriceHistory": history}, asked)

    def on_demand(self, *products: str) -> None:
        asked = {"ServiceCode": "AmazonEC2", "Filters": ANY}
        self.stubs["pricing"].add_response("get_products", {"PriceList": list(products)}, asked)

    def quotas(self, **vcpus: float | None) -> None:
        """By market and family, as `on_demand_p`; None where the account has no such quota."""
        for (market, family), code in QUOTAS.items():
            value = vcpus.get(f"{market}_{family}", 64.0)
            asked = {"ServiceCode": "ec2", "QuotaCode": code}
            stub = self.stubs["service-quotas"]
            if value is None:
                stub.add_client_error("get_service_quota", "NoSuchResourceException", expected_params=asked)
            else:
                stub.add_response("get_service_quota", {"Quota": {"Value": value}}, asked)


@pytest.fixture
def aws() -> Iterator[Aws]:
    made = Aws()
    yield made
    for stub in made.stubs.values():
        stub.assert_no_pending_responses()


def test_a_region_becomes_dated_offers_with_what_the_quota_holds(aws: Aws) -> None:
    aws.machines(*TYPES)
    aws.spot(
        ("g6.xlarge", "us-east-1a", "0.40", 3),
        ("g6.xlarge", "us-east-1a", "0.55", 1),
        ("g6.xlarge", "us-east-1b", "0.50", 2),
        ("p4d.24xlarge", "us-east-1c", "9.5", 1),
    )
    aws.quotas(on_demand_p=100.0, spot_g=None)
    aws.on_demand(product(0.8048), product(0.0))  # g6.xlarge; the second is of a capacity block
    aws.on_demand(product(21.9576), product(100, unit="Quantity"))  # p4d.24xlarge
    aws.on_demand()  # p4de.24xlarge: not sold here
    found = refresh_aws([REGION], aws)
    rows = [(o.name, o.gpu, o.gpu_count, o.usd_per_hour, o.available) for o in found.offers]
    assert rows == [
        ("aws/g6.xlarge", "L4", 1, 0.8048, 16),
        ("aws/g6.xlarge:spot", "L4", 1, 0.5, None),
        ("aws/p4d.24xlarge", "A100-40GB", 8, 21.9576, 1),
        ("aws/p4d.24xlarge:spot", "A100-40GB", 8, 9.5, 0),
    ]
    assert found.offers[1].source == "EC2 spot price history, us-east-1b"
    assert {date.fromisoformat(offer.price_date) for offer in found.offers} == {datetime.now(UTC).date()}
    assert found.left_out == (
        "us-east-1: g4ad.xlarge has GPUs that the catalog doesn't hold: 1 AMD Radeon Pro V520",
        "us-east-1: g6f.large has GPUs that the catalog doesn't hold: 1 NVIDIA L4",
        "us-east-1: p4de.24xlarge has no on_demand price",
        "us-east-1: p4de.24xlarge has no spot price",
    )


def test_the_price_of_the_right_machine_is_asked_for(aws: Aws) -> None:
    aws.machines(TYPES[2])
    aws.spot()
    aws.quotas()
    asked = {
        "instanceType": "g6.xlarge",
        "regionCode": REGION,
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
    }
    filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in asked.items()]
    aws.stubs["pricing"].add_response(
        "get_products", {"PriceList": [product(1.0)]}, {"ServiceCode": "AmazonEC2", "Filters": filters}
    )
    (offer,) = refresh_aws([REGION], aws).offers
    assert offer.market is Market.ON_DEMAND and offer.usd_per_hour == 1.0


def test_a_region_without_gpus_is_an_error_that_says_so(aws: Aws) -> None:
    aws.machines(TYPES[-1])
    with pytest.raises(HgpuError, match="no offers in us-east-1"):
        refresh_aws([REGION], aws)


def test_a_refusal_names_the_permissions(aws: Aws) -> None:
    aws.stubs["ec2"].add_client_error("describe_instance_types", "UnauthorizedOperation")
    with pytest.raises(HgpuError) as caught:
        refresh_aws([REGION], aws)
    assert "pricing:GetProducts" in caught.value.fix and not isinstance(caught.value, InputError)


def test_the_book_reads_back_and_is_never_replaced(aws: Aws, tmp_path: Path) -> None:
    aws.machines(TYPES[2])
    aws.spot(("g6.xlarge", "us-east-1a", "0.4", 1))
    aws.quotas()
    aws.on_demand(product(0.8048))
    offers = refresh_aws([REGION], aws).offers
    book = tmp_path / "book.yaml"
    write_book(book, offers)
    assert tuple(load_offers(str(book))) == offers
    with pytest.raises(InputError, match="exists"):
        write_book(book, offers)
    with pytest.raises(InputError, match="exists"):
        refreshed_book("aws", [REGION], book, print)
    with pytest.raises(InputError, match="can't write"):
        write_book(tmp_path / "nowhere" / "book.yaml", offers)


def test_without_credentials_it_says_so(hgpu: Run, tmp_path: Path) -> None:
    none = {"AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path), "AWS_CONFIG_FILE": "none"}
    none |= {
        "AWS_ACCESS_KEY_ID": "",
        "AWS_SECRET_ACCESS_KEY": "",
        "AWS_PROFILE": "",
        "AWS_SHARED_CREDENTIALS_FILE": "none",
    }
    done = hgpu("gpus", "--refresh", "aws", env={key: value for key, value in none.items() if value})
    assert done.returncode == 2 and "AWS doesn't know you" in done.stderr, done.stderr


def test_what_is_of_a_refresh_needs_one(hgpu: Run) -> None:
    done = hgpu("gpus", "--region", "us-east-1")
    assert done.returncode == 2 and "add --refresh aws" in done.stderr


def test_an_unknown_cloud_is_refused(hgpu: Run) -> None:
    done = hgpu("gpus", "--refresh", "azure")
    assert done.returncode == 2 and "unknown cloud to refresh 'azure'" in done.stderr
