"""Which options a user gave, so that what a command would pass over can be refused."""

import typer


def given_options(context: typer.Context) -> dict[str, str]:
    """Return the given parameters by name, each as the user writes it."""
    return {
        parameter.name: f"--{parameter.name.replace('_', '-')}"
        for parameter in context.command.params
        if parameter.name and str(context.get_parameter_source(parameter.name)).endswith("COMMANDLINE")
    }
