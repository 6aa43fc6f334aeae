"""Options that a command would pass over for a kind of spec are refused."""

from collections.abc import Sequence

import typer

from hgpu.core.errors import InputError


def refuse_other_options(context: typer.Context, taken: Sequence[str], what: str) -> None:
    """Raise InputError for options given on the command line that aren't among those `taken`."""
    given = [
        f"--{name.replace('_', '-')}"
        for name in (parameter.name for parameter in context.command.params)
        if name and name not in taken and str(context.get_parameter_source(name)).endswith("COMMANDLINE")
    ]
    if given:
        raise InputError(f"{', '.join(given)}: not of {what}", "it would be passed over", "drop it")
