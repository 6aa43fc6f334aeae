"""Options that commands share."""

from pathlib import Path
from typing import Annotated

import typer

Results = Annotated[
    Path, typer.Option("--results", envvar="HGPU_RESULTS", help="Folder of the artifacts.", show_default=True)
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Spec = Annotated[Path, typer.Argument(help="Spec file; write one with `hgpu init`.")]

RESULTS = Path("results")
