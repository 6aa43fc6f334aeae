"""Values from texts, as cells of a points file or options hold them; errors say where the text stands."""

from collections.abc import Sequence
from math import nan

from hgpu.core.errors import InputError, UnknownName
from hgpu.core.gpu import DType

MOST = 10_000_000  # of a number; more is a slip


def dtype_or_none(text: str, where: str, known: Sequence[DType]) -> DType | None:
    """Return the format that a text names, None where it is empty."""
    if not text:
        return None
    found = next((dtype for dtype in known if dtype == text.lower()), None)
    if found is None:
        raise located(where, UnknownName("format", text, known))
    return found


def whole_number(text: str, where: str, least: int = 1) -> int:
    """Return a number from `least` to MOST."""
    if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= MOST):
        raise InputError(
            f"{where}: {text[:40]!r} is no whole number from {least} to {MOST}", "", "correct this value"
        )
    return int(text)


def spread_or_none(text: str, where: str) -> float | None:
    """Return how far below nominal lengths reach, as a fraction; None where the text is empty."""
    if not text:
        return None
    try:
        spread = float(text)
    except ValueError:
        spread = nan
    if not 0 <= spread < 1:
        raise InputError(
            f"{where}: {text[:40]!r} is no number from 0 to below 1",
            "a spread is the fraction by which lengths fall short of the nominal",
            "correct this value; 0.2 makes lengths of 80 to 100 %",
        )
    return spread


def located(where: str, error: InputError) -> InputError:
    """Return the error with the place in front."""
    return InputError(f"{where}: {error.what}", error.why, error.fix)
