"""`hgpu gpus`: what is attached, what exists, and what it costs."""

from pathlib import Path
from typing import Annotated

import typer

from hgpu.commands.options import Json

app = typer.Typer(add_completion=False)


@app.command()
def gpus(
    names: Annotated[list[str] | None, typer.Argument(help="GPU types; all where none is given.")] = None,
    book: Annotated[str, typer.Option(help="Price book: default, melange, or a YAML file.")] = "default",
    refresh: Annotated[
        str | None, typer.Option(help="Ask this cloud (aws) for prices and quotas, and write a price book.")
    ] = None,
    region: Annotated[
        list[str] | None, typer.Option(help="Of the cloud to ask; repeatable; us-east-1 by default.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The price book to write: prices-CLOUD-DATE.yaml.")] = None,
    json: Json = False,
) -> None:
    """Show attached GPUs, GPU types and their offers, cheapest first.

    Example: hgpu gpus L4 H100-SXM
    """
    from hgpu.catalog.gpus import attached_gpus, gpu_types, resolve_gpu
    from hgpu.catalog.offers import load_offers, select_offers
    from hgpu.catalog.refresh import refreshed_book
    from hgpu.core.errors import InputError
    from hgpu.report.catalog import catalog_json, print_catalog
    from hgpu.report.output import note, print_json

    types = [resolve_gpu(name) for name in names] if names else list(gpu_types().values())
    wanted = {gpu.name for gpu in types}
    if refresh is None and (region or out):
        raise InputError("--region and --out are of --refresh", "no cloud is asked", "add --refresh aws")
    if refresh is not None:
        book = str(refreshed_book(refresh, region or ["us-east-1"], out, note))
    offers = [o for o in select_offers(load_offers(book)) if not names or o.gpu in wanted]
    attached = attached_gpus()
    if json:
        print_json(catalog_json(attached, types, offers))
    else:
        print_catalog(attached, types, offers)
