"""Options that a command would pass over for a kind of spec are refused."""

from collections.abc import Sequence

import typer

from hgpu.commands.given import given_options
from hgpu.core.errors import InputError


def refuse_other_options(context: typer.Context, taken: Sequence[str], what: str) -> None:
    """Raise InputError for options given on the command line that aren't among those `taken`."""
    given = [word for name, word in given_options(context).items() if name not in taken]
    if given:
        raise InputError(f"{', '.join(given)}: not of {what}", "it would be passed over", "drop it")
