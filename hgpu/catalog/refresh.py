"""Prices from the clouds themselves. A new cloud is one file and one line here."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from hgpu.catalog.aws_prices import Refreshed, refresh_aws
from hgpu.catalog.price_book import taken, write_book
from hgpu.core.errors import UnknownName

CLOUDS: dict[str, Callable[[Sequence[str]], Refreshed]] = {"aws": refresh_aws}
SHOWN = 5  # of what was left out; the rest is counted


def refreshed_book(cloud: str, regions: Sequence[str], out: Path | None, say: Callable[[str], None]) -> Path:
    """Ask a cloud, write its offers as a price book, and say what is in it and what isn't."""
    if cloud not in CLOUDS:
        raise UnknownName("cloud to refresh", cloud, CLOUDS)
    path = out or Path(f"prices-{cloud}-{datetime.now(UTC).date().isoformat()}.yaml")
    if path.exists():
        raise taken(path)
    found = CLOUDS[cloud](regions)
    write_book(path, found.offers)
    for reason in found.left_out[:SHOWN]:
        say(f"left out: {reason}")
    if len(found.left_out) > SHOWN:
        say(f"left out: {len(found.left_out) - SHOWN} more")
    say(f"{len(found.offers)} offers in {path}; a spec uses them with offers.book: {path}")
    return path
