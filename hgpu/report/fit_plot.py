"""A fit as a picture: predicted against measured, and what is left over."""

from collections.abc import Sequence
from pathlib import Path

from hgpu.artifacts.payloads.latency import LatencyPayload
from hgpu.artifacts.store import Artifact
from hgpu.profilers.samples import Sample

PLOT_FILE = "fit.png"
COLOURS = {"prefill": "#0072b2", "decode": "#d55e00", "mixed": "#009e73"}  # told apart by the colour-blind


def save_fit_plot(artifact: Artifact[LatencyPayload], samples: Sequence[Sample]) -> Path:
    """Draw a fit beside its manifest and return the PNG's path.

    The picture is a view of the samples and the model; it is no part of the artifact's digest.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    payload = artifact.payload
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    step = payload.latency.step
    for phase, colour in COLOURS.items():
        mine = [sample for sample in samples if sample.batch.phase == phase]
        measured_ms = [sample.step_s * 1e3 for sample in mine]
        predicted_ms = [step.step_s(sample.batch) * 1e3 for sample in mine]
        off = [100 * (p / m - 1) for p, m in zip(predicted_ms, measured_ms, strict=True)]
        left.scatter(measured_ms, predicted_ms, s=18, color=colour, label=f"{phase} ({len(mine)})")
        right.scatter([sample.batch.tokens for sample in mine], off, s=18, color=colour)
    ends = [min(s.step_s for s in samples) * 1e3, max(s.step_s for s in samples) * 1e3]
    left.plot(ends, ends, color="#888888", linewidth=1)
    left.set(xscale="log", yscale="log", xlabel=f"step, {_source(payload)}, ms", ylabel="step, fitted, ms")
    left.legend(frameon=False)
    right.axhline(0, color="#888888", linewidth=1)
    right.set(xscale="log", xlabel="tokens of the step", ylabel="fitted off by, %")
    latency = payload.latency
    name = f"{Path(payload.model.name).name} on {payload.point.name}"
    error = f"held-out error {latency.median_error:.1%} median, {latency.p90_error:.1%} p90"
    figure.suptitle(f"{name}: {error}; noise {latency.noise:.1%}", fontsize=11)
    path = artifact.path / PLOT_FILE
    figure.savefig(path, dpi=120)
    return path


def _source(payload: LatencyPayload) -> str:
    return "estimated" if payload.latency.provenance == "estimated" else "measured"
