"""`hgpu init`: write a commented spec file."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command()
def init(
    kind: Annotated[str, typer.Argument(help="What to plan: serve, offload, finetune or rl.")] = "serve",
    out: Annotated[Path | None, typer.Option(help="File to write; stdout where none is given.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a commented spec file.

    Example: hgpu init serve --out spec.yaml
    """
    from hgpu.core.errors import InputError
    from hgpu.specs.templates import template

    text = template(kind)
    if out is None:
        typer.echo(text, nl=False)
        return
    if out.exists() and not force:
        raise InputError(f"{out} exists", "it would be overwritten", "choose another --out, or pass --force")
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"can't write {out}", error.strerror or str(error), "choose another --out"
        ) from error
    typer.echo(f"wrote {out}; next: hgpu plan {out}", err=True)
