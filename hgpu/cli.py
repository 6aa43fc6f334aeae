"""The `hgpu` program. A command's module is imported only when the command is called."""

import json
import sys
from importlib import import_module
from io import TextIOWrapper
from typing import Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from hgpu import __version__
from hgpu.core.errors import HgpuError, UnknownName

COMMANDS = {
    "init": "Write a commented spec file.",
    "gpus": "Show the catalog: attached GPUs, GPU types, offers and prices.",
    "profile": "Measure each GPU type of a spec, or estimate it; `profile memory`: this machine's memory.",
    "fit": "Fit step models to profiles, with cross-validated error.",
    "estimate": "Estimate TTFT, TPOT and throughput of operating points.",
    "plan": "Find the minimal-cost allocation, its baselines, and why.",
    "tune": "Fine-tune a model on this machine: full, LoRA or LaMDA.",
    "simulate": "Replay a trace against a plan: attainment, utilisation, queueing.",
    "deploy": "Launch a plan and wait until it answers.",
    "status": "Show what is deployed and how it is.",
    "autoscale": "Say or serve how many engines the load asks for.",
    "destroy": "Take a deployment down and prove that nothing is left.",
    "supervise": "Keep a deployment alive, on this machine or on aws.",
    "router": "Route requests to a plan's pools by their size.",
    "doctor": "Say whether the GPUs are fit to serve, and what to do where they aren't.",
    "bench": "Put load on a server, and compare it with its plan.",
    "report": "Write one self-contained HTML page of an artifact.",
    "list": "List artifacts.",
    "show": "Show an artifact and its lineage.",
}


# Commands of two words whose first is a command by itself.
TWO_WORDS = {"profile memory": "profile_memory"}


INTERRUPTED = 130
READER_GONE = 141  # what a shell says of a program that SIGPIPE ended


class LazyGroup(TyperGroup):
    """Lists commands from COMMANDS and imports one only to run it."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in the order of the flow."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a stand-in that carries the one-line help, for listings."""
        return TyperCommand(cmd_name, help=COMMANDS[cmd_name]) if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the real command to run."""
        name = args[0] if args else ""
        if name not in COMMANDS:
            if name and not name.startswith("-"):
                raise UnknownName("command", name, COMMANDS)
            return super().resolve_command(ctx, args)
        both = " ".join(args[:2])
        if both in TWO_WORDS:
            module = import_module(f"hgpu.commands.{TWO_WORDS[both]}")
            return both, typer.main.get_command(module.app), args[2:]
        module = import_module(f"hgpu.commands.{name}")
        return name, typer.main.get_command(module.app), args[1:]


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hgpu {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version."
    ),
) -> None:
    """Find the cheapest GPUs that run a language model within its objective, launch them, and prove it.

    Example: hgpu init serve --out spec.yaml && hgpu plan spec.yaml
    """


def _fail(error: HgpuError) -> NoReturn:
    print("\n".join(error.lines()), file=sys.stderr)
    if "--json" in sys.argv:
        status = "infeasible" if error.exit_code == 3 else "error"
        print(json.dumps({"status": status, "error": error.what, "why": error.why, "fix": error.fix}))
    sys.exit(error.exit_code)


def main() -> None:
    """Run the program: errors become three short lines and the exit code of their kind."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal without, say, ≤ gets ? for it
            stream.reconfigure(errors="replace")
    try:
        app()
    except HgpuError as error:
        _fail(error)
    except OSError as error:
        what = (
            f"the system refused {error.filename}"
            if error.filename
            else "the system refused to read or write"
        )
        fix = "free space, or choose another folder with --results; finished work is kept"
        _fail(HgpuError(what, error.strerror or str(error), fix))
    except SystemExit as end:
        # Typer ends with 1, that of a crash, where a reader such as `head` closed the pipe.
        if end.code == INTERRUPTED:
            print("interrupted; finished work is kept", file=sys.stderr)
        sys.exit(READER_GONE if isinstance(end.__context__, BrokenPipeError) else end.code)


if __name__ == "__main__":
    main()
