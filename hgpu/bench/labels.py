"""What must be the same for two load tests to be compared; empty where nobody knows."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from hgpu.artifacts.digest import digest_of
from hgpu.bench.arrivals import Load
from hgpu.core.errors import InputError, UnknownName

# What a client can't see from outside, and the user may state.
STATED = ("gpu", "gpu_count", "driver", "engine", "engine_args", "model_revision", "dtype")


def labels_of(words: Sequence[str]) -> dict[str, str]:
    """Return the labels in texts such as `gpu=L4`. Raises InputError, UnknownName for an unknown key."""
    labels: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise InputError(f"bad label '{word}'", "it has no '='", "write --label gpu=L4")
        if key not in STATED:
            raise UnknownName("label", key, STATED)
        labels[key] = value
    return labels


def comparability(
    labels: Mapping[str, str], engine: str, model: str, api: str, workload: str
) -> dict[str, str]:
    """Return all keys; what the user stated goes before what the server says."""
    known = {**dict.fromkeys(STATED, ""), "engine": engine, **labels}
    return {**known, "model": model, "api": api, "workload": workload}


def workload_digest(lengths: str, loads: Sequence[Load], trace_sha256: str) -> str:
    """Return a digest of what is sent: lengths, arrivals, seeds and points."""
    return digest_of({"lengths": lengths, "loads": [asdict(load) for load in loads], "trace": trace_sha256})
