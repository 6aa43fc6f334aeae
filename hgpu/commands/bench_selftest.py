"""`hgpu bench selftest`: what the load generator itself can do on this machine."""

from typing import Annotated

import typer

from hgpu.commands.options import Json


def selftest(
    seconds: Annotated[float, typer.Option(min=0.5, help="Of each of its two parts.")] = 3.0,
    json: Json = False,
) -> None:
    """Send to the bundled mock server: requests a second and core, and what the generator adds to a TTFT.

    Example: hgpu bench selftest
    """
    from hgpu.bench.selftest import selftest as measure
    from hgpu.report.load import print_selftest
    from hgpu.report.output import print_json

    measured = measure(seconds)
    print_json(measured) if json else print_selftest(measured)
