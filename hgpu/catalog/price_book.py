"""Writing a price book: a dated snapshot that specs name and plans rest on."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import yaml

from hgpu.core.errors import InputError
from hgpu.core.offer import Offer


def write_book(path: Path, offers: Sequence[Offer]) -> None:
    """Write offers as `load_offers` reads them; a book that is there is never replaced.

    Raises InputError where the file exists or can't be written.
    """
    rows = [
        {f.name: _plain(getattr(offer, f.name)) for f in fields(Offer) if getattr(offer, f.name) is not None}
        for offer in offers
    ]
    text = yaml.safe_dump({"offers": rows}, sort_keys=False, allow_unicode=False)
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise taken(path) from error
    except OSError as error:
        raise InputError(
            f"can't write {path}", error.strerror or str(error), "name another with --out"
        ) from error


def taken(path: Path) -> InputError:
    """Return the error of a book that is there already."""
    return InputError(f"{path} exists", "plans may rest on it", "name another file with --out")


def _plain(value: object) -> object:
    return str(value) if isinstance(value, str) else value
