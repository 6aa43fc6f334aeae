"""`hgpu fit`: profiles to step models."""

from typing import Annotated

import typer

from hgpu.commands.options import RESULTS, Json, Results

app = typer.Typer(add_completion=False)


@app.command()
def fit(
    profiles: Annotated[
        list[str] | None,
        typer.Argument(help="Profiles: path, digest, @ref or latest; every unfitted one by default."),
    ] = None,
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """Fit a step model to each profile and report its cross-validated error.

    Example: hgpu fit latest
    """
    from hgpu.artifacts.resolve import resolve
    from hgpu.artifacts.reuse import save_once
    from hgpu.core.errors import InputError
    from hgpu.latency.routing_source import routing_behind
    from hgpu.latency.select import latency_draft, samples_of, unfitted
    from hgpu.report.fit_plot import save_fit_plot
    from hgpu.report.latency import fits_json, print_fits
    from hgpu.report.output import note, print_json

    chosen = [resolve(results, ref, "profile") for ref in profiles] if profiles else unfitted(results)
    if not chosen:
        raise InputError(
            "nothing to fit", f"every profile under {results} has a fit, or there is none", "run hgpu profile"
        )
    fitted = [
        save_once(results, latency_draft(profile, routing_behind(results, profile))) for profile in chosen
    ]
    for latency, profile in zip(fitted, chosen, strict=True):
        note(f"drawn: {save_fit_plot(latency, samples_of(profile))}")
    print_json(fits_json(fitted)) if json else print_fits(fitted)
