"""Reading manifests of older schema versions."""

from collections.abc import Callable, Mapping
from typing import Any

from hgpu.core.errors import ArtifactError

Document = dict[str, Any]
Upgrade = Callable[[Document], Document]


def _plan_1(document: Document) -> Document:
    """Version 2 adds what binds and what was proved, tiers, and the bounds of a routing row's bucket."""
    old = document["payload"]
    buckets = old["workload"]["buckets"] if old["workload"] else [{}] * len(old["routing"])
    bounds = ("input_low", "input_high", "output_low", "output_high")
    payload = {
        **old,
        "idle_usd_per_hour": 0.0,
        "served": 1.0,
        "confidence": 0.5,
        "tiers": [],
        "explanation": None,
        "proof": None,
        "allocation": [{**row, "safety_factor": 1.0} for row in old["allocation"]],
        "routing": [
            {**row, "tier": "", **{name: bucket.get(name) for name in bounds}}
            for row, bucket in zip(old["routing"], buckets, strict=True)
        ],
    }
    return {**document, "payload": payload}


def _simulation_1(document: Document) -> Document:
    """Version 2 adds what prefix caching saved, which nobody simulated before."""
    old = document["payload"]
    runs = [{**run, "pools": [{**pool, "hit_share": None} for pool in run["pools"]]} for run in old["runs"]]
    return {**document, "payload": {**old, "runs": runs}}


# (kind, version it reads) -> a pure function that returns the document one version later
UPGRADES: Mapping[tuple[str, int], Upgrade] = {
    ("plan", 1): _plan_1,
    ("simulation", 1): _simulation_1,
}


def upgraded(
    document: Document, current: int, upgrades: Mapping[tuple[str, int], Upgrade] = UPGRADES
) -> Document:
    """Return the document at schema version `current`; files on disk are never rewritten.

    Raises ArtifactError where the document is newer than this program or a step is missing.
    """
    kind, version = document["kind"], document["schema_version"]
    if version > current:
        raise ArtifactError(
            f"this {kind} has schema version {version}",
            f"this hgpu reads {kind} up to version {current}",
            "upgrade hgpu to the version in the artifact's producer field: "
            f"{document.get('producer', {}).get('version', 'unknown')} or newer",
        )
    while version < current:
        step = upgrades.get((kind, version))
        if step is None:
            raise ArtifactError(
                f"no way to read {kind} schema version {version}",
                f"this hgpu reads versions it has an upgrade for, up to {current}",
                "make the artifact again",
            )
        version += 1
        document = {**step(document), "schema_version": version}
    return document
