"""`hgpu estimate`: TTFT, TPOT and throughput of operating points."""

from pathlib import Path
from typing import Annotated

import typer

from hgpu.commands.options import RESULTS, Json, Results

app = typer.Typer(add_completion=False)


@app.command()
def estimate(
    model: Annotated[str, typer.Option(help="Hugging Face id, folder or config.json.")] = "",
    gpu: Annotated[str, typer.Option(help="GPU type, as in `hgpu gpus`.")] = "",
    tp: Annotated[int, typer.Option(min=1, help="Tensor parallel degree.")] = 1,
    dtype: Annotated[str, typer.Option(help="bf16, fp8, …; as the weights are stored by default.")] = "",
    kv_dtype: Annotated[
        str, typer.Option(help="Of the KV cache: bf16, fp16, fp8; as the model says by default.")
    ] = "",
    input: Annotated[int, typer.Option(min=1, help="Nominal input tokens.")] = 1024,
    output: Annotated[int, typer.Option(min=1, help="Nominal output tokens.")] = 128,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests in flight.")] = 1,
    points: Annotated[
        Path | None,
        typer.Option(
            help="CSV: model,gpu,tp,dtype,input_tokens,output_tokens,concurrency"
            "[,kv_dtype,input_spread,output_spread,max_num_batched_tokens]."
        ),
    ] = None,
    source: Annotated[
        str, typer.Option("--from", help="Latency models: fit, silicon, roofline, or auto: the first.")
    ] = "auto",
    latency: Annotated[
        list[str] | None, typer.Option(help="Fit to use: path, digest or @ref. May be repeated.")
    ] = None,
    requests_per_slot: Annotated[int, typer.Option(min=1, help="Requests in all, a slot in flight.")] = 10,
    input_spread: Annotated[
        float, typer.Option(min=0.0, max=0.99, help="Inputs reach so far below nominal; 0: all equal.")
    ] = 0.1,
    output_spread: Annotated[
        float, typer.Option(min=0.0, max=0.99, help="Outputs too, and by 16 tokens or more.")
    ] = 0.2,
    seed: Annotated[int, typer.Option(min=0, help="Of the lengths.")] = 0,
    request_ms: Annotated[
        float | None,
        typer.Option(min=0.0, help="HTTP and tokenizer; by default what the fit knows, 20 on estimates."),
    ] = None,
    step_ms: Annotated[float, typer.Option(min=0.0, help="Host time added to every step.")] = 0.0,
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """Estimate TTFT, TPOT and throughput under a closed loop, for one point or a CSV of them.

    Example: hgpu estimate --model Qwen/Qwen3-32B --gpu H100-SXM --tp 2 --input 4000 --output 500
    """
    from hgpu.report.estimate import estimates_json, print_estimates
    from hgpu.report.output import note, print_json
    from hgpu.report.progress import progress_of
    from hgpu.simulator.answers import Sources, answers, named_fits
    from hgpu.simulator.harness import Harness
    from hgpu.specs.points import one_or_many

    options = {"model": model, "gpu": gpu, "tp": tp, "dtype": dtype, "kv_dtype": kv_dtype}
    load = {"input_tokens": input, "output_tokens": output, "concurrency": concurrency}
    asked, unused = one_or_many(points, {name: str(value) for name, value in (options | load).items()})
    if unused:
        note(f"columns that mean nothing here: {', '.join(unused)}")
    harness = Harness(
        requests_per_slot,
        input_spread,
        output_spread,
        seed=seed,
        request_s=None if request_ms is None else request_ms / 1e3,
        step_s=step_ms / 1e3,
    )
    sources = Sources(results, note, source, named_fits(results, latency or [], asked))
    with progress_of("simulating") as progress:
        rows = answers(asked, sources, harness, progress)
    print_json(estimates_json(rows, harness)) if json else print_estimates(rows, harness)
    if not any(row.figures for row in rows):
        raise typer.Exit(3)
