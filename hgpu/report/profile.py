"""Profiles in the terminal and as JSON."""

from collections.abc import Sequence
from typing import Any

from hgpu.artifacts.payloads.profile import ProfilePayload
from hgpu.artifacts.store import Artifact
from hgpu.report.output import console, table


def print_profiles(artifacts: Sequence[Artifact[ProfilePayload]]) -> None:
    """Print a row a profile, and what is doubtful about it."""
    rows = table(
        "",
        "operating point",
        "profiler",
        ">samples",
        ">noise",
        ">KV tokens",
        ">seconds",
        "engine",
        "source",
        "digest",
    )
    for artifact in artifacts:
        payload, manifest = artifact.payload, artifact.manifest
        rows.add_row(
            payload.point.name, payload.profiler, str(payload.samples), f"{payload.noise:.1%}",
            f"{payload.kv_capacity_tokens:,}", f"{manifest.timings.get('profile_s', 0.0):.0f}",
            manifest.environment.engine or "-", str(payload.provenance), artifact.short,
        )  # fmt: skip
    out = console()
    out.print(rows)
    for artifact in artifacts:
        for reason in artifact.manifest.validity.reasons:
            out.print(f"{artifact.payload.point.name}: {reason}", markup=False, soft_wrap=True)


def profiles_json(artifacts: Sequence[Artifact[ProfilePayload]]) -> dict[str, Any]:
    """Return the payloads with digest, path, validity and seconds."""
    return {
        "profiles": [
            {
                **artifact.payload.model_dump(mode="json"),
                "digest": artifact.digest,
                "path": str(artifact.path),
                "validity": artifact.manifest.validity.model_dump(),
                "timings": artifact.manifest.timings,
            }
            for artifact in artifacts
        ]
    }
