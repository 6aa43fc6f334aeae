"""The page of a latency model: how far to trust it."""

from hgpu.artifacts.payloads.latency import LatencyPayload
from hgpu.artifacts.payloads.profile import ProfilePayload
from hgpu.artifacts.related import Related
from hgpu.artifacts.store import Artifact
from hgpu.latency.select import samples_of
from hgpu.report.html.blocks import Block, Figure, Lines, Page, Section, from_terminal
from hgpu.report.html.steps import fit_chart, residuals_chart
from hgpu.report.latency import coefficients_table, errors_table


def latency_page(artifact: Artifact[LatencyPayload], related: Related) -> Page:
    """Draw a fit against the steps that it was made from, where their profile is in the store."""
    payload = artifact.payload
    source = str(payload.latency.provenance)
    profiles: list[Artifact[ProfilePayload]] = related.inputs("profile")
    return Page(
        title=f"{payload.model.name} on {payload.point.name}",
        lead=f"latency model, {payload.point.formats}, {payload.point.mode}",
        verdict=_verdict(payload),
        figures=_figures(payload),
        sections=[
            Section("Fit", fit_blocks(artifact, profiles)),
            Section("Error", [from_terminal(errors_table([artifact]), source)]),
            Section(
                "Step model", [from_terminal(coefficients_table([artifact]), source, REACH.format(payload))]
            ),
        ],
    )


REACH = (
    "The largest step that it was fitted on has {0.largest_step_tokens:,.0f} tokens and reads "
    "{0.largest_step_context_tokens:,.0f} tokens of context; beyond that it extrapolates."
)


def fit_blocks(fit: Artifact[LatencyPayload], profiles: list[Artifact[ProfilePayload]]) -> list[Block]:
    """Return fit and residuals over the samples of its profile."""
    if not profiles:
        return [Lines(["The profile that it was fitted on isn't in the store, so its steps can't be drawn."])]
    samples = samples_of(profiles[0])
    measured = str(profiles[0].payload.provenance)
    source = f"{fit.payload.latency.provenance} by {fit.short}, steps {measured}"
    step = fit.payload.latency.step
    return [fit_chart(samples, step, source, measured), residuals_chart(samples, step, source)]


def _verdict(payload: LatencyPayload) -> str:
    latency = payload.latency
    return (
        f"Held-out steps are predicted within {latency.median_error:.1%} at the median and "
        f"{latency.p90_error:.1%} at the 90th percentile; repeated steps differ by {latency.noise:.1%}."
    )


def _figures(payload: LatencyPayload) -> list[Figure]:
    latency = payload.latency
    source = f"cross-validated, {latency.provenance}"
    return [
        Figure("error of a step", f"{latency.median_error:.1%}", "median, held out", source),
        Figure("error of a step", f"{latency.p90_error:.1%}", "90th percentile, held out", source),
        Figure("KV cache", f"{latency.kv_capacity_tokens:,}", "tokens", str(latency.provenance)),
    ]
