"""Offers: price books read and checked, and the choice of what a plan may rent."""

import math
from collections.abc import Iterable, Sequence
from datetime import date
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from hgpu.catalog.gpus import resolve_gpu
from hgpu.core.errors import InputError, UnknownName
from hgpu.core.offer import Market, Offer

BOOKS = {"default": "offers.yaml", "melange": "offers_melange.yaml"}

_Text = Annotated[str, Field(min_length=1)]


class _Entry(BaseModel):
    """One offer as a price book states it."""

    model_config = ConfigDict(extra="forbid")

    cloud: _Text
    instance_type: _Text
    region: _Text
    market: Market
    gpu: _Text
    gpu_count: int = Field(ge=1)
    usd_per_hour: float
    price_date: str
    source: _Text
    available: int | None = Field(default=None, ge=0)
    host_memory_gib: float | None = Field(default=None, gt=0)

    @field_validator("price_date", mode="before")
    @classmethod
    def _iso_date(cls, value: object) -> str:
        if not isinstance(value, str) or len(value) != len("YYYY-MM-DD"):
            raise ValueError("must be a date as YYYY-MM-DD")
        return date.fromisoformat(value).isoformat()

    @field_validator("gpu")
    @classmethod
    def _known_gpu(cls, value: str) -> str:
        try:
            return resolve_gpu(value).name
        except UnknownName as error:
            raise ValueError(f"{error.what}; {error.fix}") from error


def load_offers(book: str = "default") -> list[Offer]:
    """Return a price book's offers in its order: a known book, or a YAML file of the same shape.

    Raises UnknownName for a book that is neither, InputError naming file, entry and field otherwise.
    """
    label, text = _read(book)
    offers = [_offer(label, number, raw) for number, raw in enumerate(_raw_entries(label, text), start=1)]
    _refuse_duplicates(label, offers)
    return offers


def select_offers(
    offers: Iterable[Offer],
    *,
    gpus: Sequence[str] | None = None,
    clouds: Sequence[str] | None = None,
    markets: Sequence[str] | None = None,
    regions: Sequence[str] | None = None,
) -> list[Offer]:
    """Return the offers that match every given list, in their order; None matches all.

    Raises UnknownName for a GPU type, cloud, market or region that no offer or catalog knows, and
    InputError for a rented offer whose price isn't a positive number.
    """
    offers = list(offers)
    wanted_gpus = None if gpus is None else {resolve_gpu(name).name for name in gpus}
    wanted_clouds = _wanted("cloud", clouds, {offer.cloud for offer in offers})
    wanted_markets = _wanted("market", markets, set(Market))
    wanted_regions = _wanted("region", regions, {offer.region for offer in offers})
    chosen = [
        offer
        for offer in offers
        if (wanted_gpus is None or offer.gpu in wanted_gpus)
        and (wanted_clouds is None or offer.cloud in wanted_clouds)
        and (wanted_markets is None or offer.market in wanted_markets)
        and (wanted_regions is None or offer.region in wanted_regions)
    ]
    for offer in chosen:
        problem = _price_problem(offer.market, offer.usd_per_hour)
        if problem:
            raise InputError(f"the price of {offer.name} can't be used", problem, "correct its usd_per_hour")
    return chosen


def price_date(offers: Iterable[Offer]) -> str:
    """Return the oldest price date (YYYY-MM-DD) that these offers rest on."""
    dates = [offer.price_date for offer in offers]
    if not dates:
        raise InputError(
            "no price date: there are no offers", fix="widen the GPUs, clouds, markets or regions"
        )
    return min(dates)


def _read(book: str) -> tuple[str, str]:
    """Return what to call the book in messages, and its text."""
    if book in BOOKS:
        name = BOOKS[book]
        return name, files("hgpu.catalog").joinpath("data", name).read_text(encoding="utf-8")
    path = Path(book)
    if path.suffix not in (".yaml", ".yml") and not path.is_file():
        raise UnknownName("price book", book, BOOKS)
    try:
        return str(path), path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"price book {path} can't be read",
            getattr(error, "strerror", None) or str(error),
            "give a readable YAML file",
        ) from error


@cache
def _loader() -> Any:
    """Return a safe YAML loader that leaves dates as text, so that a wrong one is reported with its entry."""
    base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    resolvers = {
        first: [(tag, pattern) for tag, pattern in pairs if tag != "tag:yaml.org,2002:timestamp"]
        for first, pairs in base.yaml_implicit_resolvers.items()
    }
    return type("_TextDates", (base,), {"yaml_implicit_resolvers": resolvers})


def _raw_entries(label: str, text: str) -> list[object]:
    try:
        document = yaml.load(text, Loader=_loader())
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"price book {label} is not YAML", " ".join(str(error).split())) from error
    if not isinstance(document, dict) or set(document) != {"offers"}:
        raise InputError(f"price book {label} has no offers", "its only top-level key must be `offers`")
    entries = document["offers"]
    if not isinstance(entries, list) or not entries:
        raise InputError(
            f"price book {label} has no offers", "`offers` must be a list with at least one entry"
        )
    return entries


def _offer(label: str, number: int, raw: object) -> Offer:
    try:
        entry = _Entry.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "(the entry itself)"
        raise _bad_field(label, number, name, first["msg"]) from error
    problem = _price_problem(entry.market, entry.usd_per_hour)
    if problem:
        raise _bad_field(label, number, "usd_per_hour", problem)
    return Offer(**dict(entry))


def _bad_field(label: str, number: int, field: str, why: str) -> InputError:
    return InputError(f"price book {label}: entry {number}, field {field}", why, "correct that field")


def _price_problem(market: Market, usd_per_hour: float) -> str:
    """Say what is wrong with a price; only what one owns may cost nothing."""
    if not math.isfinite(usd_per_hour) or usd_per_hour < 0:
        return f"{usd_per_hour} USD/h is no price"
    if usd_per_hour == 0 and market is not Market.OWNED:
        return f"0 USD/h is a price for market '{Market.OWNED}' only, not '{market}'"
    return ""


def _refuse_duplicates(label: str, offers: Sequence[Offer]) -> None:
    first_seen: dict[tuple[str, str, str, str], int] = {}
    for number, offer in enumerate(offers, start=1):
        key = (offer.cloud, offer.instance_type, offer.region, offer.market)
        first = first_seen.setdefault(key, number)
        if first != number:
            raise _bad_field(
                label, number, "instance_type", f"{offer.name} in {offer.region} is entry {first} too"
            )


def _wanted(noun: str, names: Sequence[str] | None, known: Iterable[str]) -> set[str] | None:
    """Match names without case to known ones, or raise UnknownName."""
    if names is None:
        return None
    by_lower = {name.lower(): name for name in known}
    for name in names:
        if name.lower() not in by_lower:
            raise UnknownName(noun, name, by_lower.values())
    return {by_lower[name.lower()] for name in names}
