"""Reading manifests of older schema versions."""

from collections.abc import Callable, Mapping
from typing import Any

from hgpu.core.errors import ArtifactError

Document = dict[str, Any]
Upgrade = Callable[[Document], Document]


def _with_kv_cache_dtype(row: Document) -> Document:
    """Return what holds an operating point with what version 1 meant: the model's own format.

    A reader of version 1 would drop that option unseen and take an FP8 cache for a 16-bit one.
    """
    engine = {**row["point"]["engine"], "kv_cache_dtype": None}
    return {**row, "point": {**row["point"], "engine": engine}}


def _point_of_payload(document: Document) -> Document:
    return {**document, "payload": _with_kv_cache_dtype(document["payload"])}


def _deployment_of_version_1(document: Document) -> Document:
    payload = document["payload"]
    slots = [_with_kv_cache_dtype(row) for row in payload["slots"]]
    return {**document, "payload": {**payload, "slots": slots}}


def _latency_of_version_1(document: Document) -> Document:
    """Add the cost of any prefill, which version 1 had no term for."""
    document = _point_of_payload(document)
    latency = document["payload"]["latency"]
    latency = {**latency, "step": {**latency["step"], "prefill_s": 0.0}}
    return {**document, "payload": {**document["payload"], "latency": latency}}


def _plan_of_version_1(document: Document) -> Document:
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
        "allocation": [{**_with_kv_cache_dtype(row), "safety_factor": 1.0} for row in old["allocation"]],
        "routing": [
            {**row, "tier": "", **{name: bucket.get(name) for name in bounds}}
            for row, bucket in zip(old["routing"], buckets, strict=True)
        ],
    }
    return {**document, "payload": payload}


def _plan_of_version_2(document: Document) -> Document:
    """Version 3 adds what the scheduler of an engine in mode `pd` is told; there were none before it."""
    old = document["payload"]
    rows = [{**row, "phases": None} for row in old["allocation"]]
    return {**document, "payload": {**old, "allocation": rows}}


def _without_experts(row: Document) -> Document:
    """Return what holds an operating point of a time when no engine had experts in host memory."""
    return {**row, "point": {**row["point"], "experts": None}}


def _resident_point(document: Document) -> Document:
    return {**document, "payload": _without_experts(document["payload"])}


def _latency_of_version_2(document: Document) -> Document:
    """Version 3 adds what copying experts takes; nothing was copied before it."""
    payload = _without_experts(document["payload"])
    latency = {**payload["latency"], "step": {**payload["latency"]["step"], "copies": None}}
    return {**document, "payload": {**payload, "latency": latency}}


def _plan_of_version_3(document: Document) -> Document:
    """Version 4 adds expert caches, and in the steps that a phase scheduler is told what copying takes."""
    payload = document["payload"]
    rows = [_without_experts(row) for row in payload["allocation"]]
    for row in rows:
        if row["phases"] and row["phases"]["step"]:
            row["phases"] = {**row["phases"], "step": {**row["phases"]["step"], "copies": None}}
    return {**document, "payload": {**payload, "allocation": rows}}


def _deployment_of_version_2(document: Document) -> Document:
    slots = [_without_experts(row) for row in document["payload"]["slots"]]
    return {**document, "payload": {**document["payload"], "slots": slots}}


def _tuning_of_version_1(document: Document) -> Document:
    """Version 2 adds how many processes trained; there was one before it."""
    return {**document, "payload": {**document["payload"], "processes": 1, "sharding": "none"}}


# (kind, version it reads) -> a pure function that returns the document one version later
UPGRADES: Mapping[tuple[str, int], Upgrade] = {
    ("profile", 1): _point_of_payload,
    ("profile", 2): _resident_point,
    ("latency", 1): _latency_of_version_1,
    ("latency", 2): _latency_of_version_2,
    ("plan", 1): _plan_of_version_1,
    ("plan", 2): _plan_of_version_2,
    ("plan", 3): _plan_of_version_3,
    ("deployment", 1): _deployment_of_version_1,
    ("deployment", 2): _deployment_of_version_2,
    ("tuning", 1): _tuning_of_version_1,
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
