"""`hgpu router`: a plan's routing before its pools."""

from pathlib import Path
from typing import Annotated

import typer

from hgpu.commands.options import RESULTS, Results

app = typer.Typer(add_completion=False)


@app.command()
def router(
    plan: Annotated[str, typer.Argument(help="Plan: path, digest prefix, @ref or latest.")],
    pool: Annotated[list[str] | None, typer.Option(help="NAME=URL, once for each pool of the plan.")] = None,
    prefill: Annotated[
        list[str] | None,
        typer.Option(help="NAME=URL of a prefill engine: the pool is a pair, and --pool's URL decodes."),
    ] = None,
    pools: Annotated[
        Path | None,
        typer.Option(help="File of such lines, `prefill NAME=URL` among them; read again on SIGHUP."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than 127.0.0.1 need a key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Prometheus metrics, on 127.0.0.1.")
    ] = None,
    retry: Annotated[
        float, typer.Option(min=0.0, help="Seconds to try a request that nobody has begun to answer.")
    ] = 60.0,
    drain: Annotated[float, typer.Option(min=0.0, help="Seconds for what is in flight at the end.")] = 120.0,
    handoff: Annotated[
        float, typer.Option(min=0.0, help="Seconds that a prefill engine has for a prompt.")
    ] = 30.0,
    bytes_per_token: Annotated[
        float, typer.Option(min=0.5, max=32.0, help="Of prompts; learned from engines' counts later.")
    ] = 4.0,
    results: Results = RESULTS,
) -> None:
    """Send each request to the pool that the plan has for its size, and its answer back untouched.

    An API key is read from HGPU_API_KEY or VLLM_API_KEY; clients then must give it. SIGTERM drains. SIGHUP
    reads PLAN and --pools again: @ref and latest may mean another plan by then.

    Example: hgpu router latest --pool a10g-tp1=http://127.0.0.1:8001 --pool h100-tp1=http://127.0.0.1:8002
    """
    from hgpu.artifacts.resolve import resolve
    from hgpu.report.output import note
    from hgpu.runtime.completion import api_key
    from hgpu.runtime.router.following import Followed
    from hgpu.runtime.router.process import Listen, run_router
    from hgpu.runtime.router.router import RouterOptions
    from hgpu.runtime.router.table import table_of
    from hgpu.runtime.router.urls import urls_of, words_of

    def read() -> Followed:
        artifact = resolve(results, plan, "plan")
        more, more_prefill = words_of(pools) if pools else ([], [])
        urls, prefill_urls = urls_of([*(pool or ()), *more]), urls_of([*(prefill or ()), *more_prefill])
        return Followed(table_of(artifact.payload), urls, artifact.short, prefill_urls)

    options = RouterOptions(retry, drain, bytes_per_token=bytes_per_token, handoff_s=handoff)
    listen = Listen(host, port, metrics_port)
    run_router(read, options, listen, api_key(), note)
