import dataclasses
from datetime import date

import pytest

from hgpu.catalog.gpus import resolve_gpu
from hgpu.catalog.offers import BOOKS, load_offers, price_date, select_offers
from hgpu.core.errors import InputError, UnknownName
from hgpu.core.offer import Market

GOOD = {
    "cloud": "mine",
    "instance_type": "box",
    "region": "home",
    "market": "on_demand",
    "gpu": "h100_sxm",
    "gpu_count": 2,
    "usd_per_hour": 4.5,
    "price_date": "2026-01-31",
    "source": "invoice",
}


def book(tmp_path, *entries):
    lines = ["offers:"]
    for entry in entries:
        lines.append("  - " + "\n    ".join(f"{key}: {value}" for key, value in entry.items()))
    path = tmp_path / "prices.yaml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", BOOKS)
def test_every_offer_of_every_book_is_usable(name):
    for offer in load_offers(name):
        assert resolve_gpu(offer.gpu).name == offer.gpu
        assert date.fromisoformat(offer.price_date).isoformat() == offer.price_date
        assert offer.usd_per_hour > 0
        assert offer.gpu_count >= 1
        assert offer.source


def test_default_book_covers_the_clouds_and_markets():
    offers = load_offers()
    assert {offer.cloud for offer in offers} == {"aws", "gcp", "azure", "runpod", "lambda"}
    assert {offer.market for offer in offers} == {Market.ON_DEMAND, Market.SPOT}


def test_prices_of_note():
    prices = {offer.name: offer for offer in load_offers()}
    assert prices["aws/p5.48xlarge"].usd_per_gpu_hour == pytest.approx(6.88)
    assert prices["aws/c7a.large"].gpu == "cpu-2core"
    assert prices["aws/c7a.large"].gpu_count == 1


def test_spot_is_never_dearer_than_on_demand():
    on_demand = {(o.cloud, o.instance_type): o for o in load_offers() if o.market is Market.ON_DEMAND}
    for offer in load_offers():
        listed = on_demand.get((offer.cloud, offer.instance_type))
        if offer.market is Market.SPOT and listed:
            assert offer.usd_per_hour <= listed.usd_per_hour


def test_melange_book_holds_the_paper_prices():
    assert {offer.gpu: offer.usd_per_hour for offer in load_offers("melange")} == {
        "L4": 0.70,
        "A10G": 1.01,
        "A100-80GB": 3.67,
        "H100-SXM": 7.516,
    }


def test_a_users_book_names_gpus_as_it_likes(tmp_path):
    (offer,) = load_offers(book(tmp_path, GOOD))
    assert (offer.gpu, offer.market, offer.price_date) == ("H100-SXM", Market.ON_DEMAND, "2026-01-31")
    assert offer.available is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("usd_per_hour", "cheap"),
        ("usd_per_hour", 0),
        ("usd_per_hour", -1),
        ("usd_per_hour", ".nan"),
        ("usd_per_hour", ".inf"),
        ("gpu_count", 0),
        ("gpu", "H100-SMX"),
        ("market", "borrowed"),
        ("price_date", "2026-02-30"),
        ("price_date", "20260131"),
        ("price_date", "last week"),
        ("source", '""'),
        ("colour", "green"),
    ],
)
def test_a_bad_field_is_named_with_its_entry_and_file(tmp_path, field, value):
    path = book(tmp_path, GOOD, GOOD | {"region": "away", field: value})
    with pytest.raises(InputError) as caught:
        load_offers(path)
    assert path in caught.value.what
    assert "entry 2" in caught.value.what
    assert f"field {field}" in caught.value.what
    assert caught.value.why


def test_a_missing_field_is_named(tmp_path):
    entry = {key: value for key, value in GOOD.items() if key != "source"}
    with pytest.raises(InputError, match="entry 1, field source"):
        load_offers(book(tmp_path, entry))


def test_a_misspelt_gpu_brings_the_nearest(tmp_path):
    with pytest.raises(InputError, match="H100-SXM"):
        load_offers(book(tmp_path, GOOD | {"gpu": "H100-SMX"}))


def test_what_one_owns_may_cost_nothing(tmp_path):
    (offer,) = load_offers(book(tmp_path, GOOD | {"market": "owned", "usd_per_hour": 0}))
    assert offer.usd_per_hour == 0


def test_the_same_offer_twice_is_refused(tmp_path):
    with pytest.raises(InputError, match="entry 2"):
        load_offers(book(tmp_path, GOOD, GOOD))


@pytest.mark.parametrize(
    "text", ["", "offers: []\n", "offers: 3\n", "- 1\n", "prices: []\n", "offers: [}\n", "offers: [7]\n"]
)
def test_a_malformed_book_is_refused(tmp_path, text):
    path = tmp_path / "prices.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"prices\.yaml"):
        load_offers(str(path))


def test_a_book_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="can't be read"):
        load_offers(str(tmp_path / "nowhere.yaml"))
    with pytest.raises(UnknownName) as caught:
        load_offers("melanje")
    assert caught.value.nearest == ["melange"]


def test_order_is_the_books_and_selection_keeps_it():
    offers = load_offers()
    assert offers == load_offers()
    chosen = select_offers(
        offers, gpus=["nvidia-l4", "h100_sxm"], clouds=["GCP", "aws"], markets=["on_demand"]
    )
    again = select_offers(offers, gpus=["H100-SXM", "L4"], clouds=["aws", "gcp"], markets=[Market.ON_DEMAND])
    assert chosen == again == [offer for offer in offers if offer in chosen]
    assert {offer.gpu for offer in chosen} == {"L4", "H100-SXM"}
    assert {offer.cloud for offer in chosen} == {"aws", "gcp"}


def test_no_filter_keeps_all_and_regions_filter():
    offers = load_offers()
    assert select_offers(offers) == offers
    assert {o.cloud for o in select_offers(offers, regions=["us-central1"])} == {"gcp"}


@pytest.mark.parametrize(
    "wrong", [{"clouds": ["awz"]}, {"markets": ["sport"]}, {"regions": ["us-east-9"]}, {"gpus": ["H1OO-SXM"]}]
)
def test_unknown_names_bring_the_nearest(wrong):
    with pytest.raises(UnknownName) as caught:
        select_offers(load_offers(), **wrong)
    assert caught.value.nearest


@pytest.mark.parametrize("price", [0.0, -1.0, float("nan")])
def test_selection_refuses_a_price_that_is_none(price):
    offer = dataclasses.replace(load_offers()[0], usd_per_hour=price)
    with pytest.raises(InputError, match="price"):
        select_offers([offer])


def test_price_date_is_the_oldest():
    offers = load_offers()
    assert price_date(offers) == min(offer.price_date for offer in offers)
    assert price_date(load_offers("melange")) == "2024-04-22"
    with pytest.raises(InputError):
        price_date([])
