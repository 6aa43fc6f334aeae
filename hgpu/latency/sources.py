"""Where a latency model may come from: the registry of sources, and the choice among them.

A source is a function of (store, model, operating point) that returns a latency artifact, or None
where it has no answer. It raises Infeasible where the model doesn't fit the point's memory. SOURCES
lists them from the strongest to the weakest: `auto` takes the first that answers.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from hgpu.artifacts.resolve import entries, under_ci
from hgpu.artifacts.store import load
from hgpu.core.errors import Infeasible, InputError, UnknownName
from hgpu.core.model import ModelSpec
from hgpu.core.operating_point import EngineOptions, OperatingPoint
from hgpu.core.provenance import Provenance
from hgpu.latency.select import LatencyArtifact, estimated
from hgpu.latency.silicon_source import silicon_artifact

Source = Callable[[Path, ModelSpec, OperatingPoint], LatencyArtifact | None]
AUTO = "auto"
NAMED = "fit"  # what the user names counts as a fit


@dataclass(frozen=True, slots=True)
class Choice:
    """A latency artifact, the source that it came from, and what the user should know of it."""

    source: str
    artifact: LatencyArtifact
    note: str = ""


def newest_fit(root: Path, model: ModelSpec, point: OperatingPoint) -> LatencyArtifact | None:
    """Return the newest valid fit of measurements, whatever the engine options it was measured with.

    Raises InputError under CI=true, where a run must name what it uses.
    """
    for entry in entries(root, "latency"):
        artifact: LatencyArtifact = load(entry.path)
        measured = artifact.payload.latency.provenance is Provenance.FITTED
        if measured and artifact.manifest.validity.valid and is_of(artifact, model, point):
            if under_ci():
                raise InputError(
                    f"a fit of {point.name} is in the store, and CI=true",
                    "a CI run must not depend on which artifact happens to be newest",
                    f"name it with --latency {artifact.short}, or pass --from roofline",
                )
            return artifact
    return None


def kernel_tables(root: Path, model: ModelSpec, point: OperatingPoint) -> LatencyArtifact:
    """Return the model composed of measured kernel times; raises InputError where no table covers it."""
    return silicon_artifact(root, model, model.name, point)


SOURCES: dict[str, Source] = {
    "fit": newest_fit,
    "silicon": kernel_tables,
    "roofline": estimated,
}
OPTIONAL = ("silicon",)  # covers few types and needs an extra: `auto` passes it over where it can't answer


def choose(
    root: Path,
    model: ModelSpec,
    point: OperatingPoint,
    wanted: str = AUTO,
    named: Sequence[LatencyArtifact] = (),
) -> Choice:
    """Return the latency model of a point: a named one that is of it, else from the wanted source.

    Raises Infeasible where the source has no answer, UnknownName where there is no such source.
    """
    if wanted not in (AUTO, *SOURCES):
        raise UnknownName("source of latency models", wanted, (AUTO, *SOURCES))
    for artifact in named:
        if is_of(artifact, model, point):
            return Choice(NAMED, artifact, differing(artifact.payload.point.engine, point.engine))
    passed_over = ""
    for source in SOURCES if wanted == AUTO else (wanted,):
        try:
            found = SOURCES[source](root, model, point)
        except InputError as error:
            if wanted != AUTO or source not in OPTIONAL:
                raise
            passed_over = f"{source} passed over: {error.what}"
            continue
        if found is not None:
            notes = (differing(found.payload.point.engine, point.engine), passed_over)
            return Choice(source, found, "; ".join(note for note in notes if note))
    raise Infeasible(
        f"no latency model of {model.name} on {point.name} in {point.formats}",
        f"source '{wanted}' has none" + (" of measurements" if wanted == NAMED else ""),
        "profile and fit it, or take another source with --from",
    )


def is_of(artifact: LatencyArtifact, model: ModelSpec, point: OperatingPoint) -> bool:
    """Tell whether a latency model is of this model on this point, engine options aside.

    Models are the same where all their sizes are: a name, or a format that is spelled out in a spec,
    changes no step time. The KV cache is among the sizes, in the format that the engine keeps it in:
    another one holds other numbers of tokens and takes other times to read, so its fit is of another point.
    """
    fitted = artifact.payload
    mine = replace(fitted.point, engine=point.engine)
    return mine == point and _sizes(fitted.model, fitted.point.engine) == _sizes(model, point.engine)


def differing(fitted: EngineOptions, asked: EngineOptions) -> str:
    """Say which options the steps were measured with, where they aren't those that are asked for.

    The format of the KV cache isn't said: `is_of` holds that it is the same, spelled out or not.
    """
    here, there = (asdict(replace(options, kv_cache_dtype=None)) for options in (asked, fitted))
    parts = [f"{name} {there[name]}, not {here[name]}" for name in here if here[name] != there[name]]
    return f"measured with {'; '.join(parts)}" if parts else ""


def _sizes(model: ModelSpec, engine: EngineOptions) -> ModelSpec:
    return replace(model.cached_in(engine.kv_cache_dtype), name="", digest="")
