"""Memory of rentable machines beside their GPUs."""

from functools import cache
from importlib.resources import files

import yaml

GIB = 2**30


def host_memory_bytes(instance_type: str) -> int | None:
    """Return the bytes of host memory that a cloud lists for a machine, None where that isn't known."""
    gib = _memory_gib().get(instance_type)
    return None if gib is None else round(gib * GIB)


@cache
def _memory_gib() -> dict[str, float]:
    text = files("hgpu.catalog").joinpath("data/hosts.yaml").read_text(encoding="utf-8")
    rows = yaml.safe_load(text)["hosts"]
    return {name: float(gib) for row in rows for name, gib in row["memory_gib"].items()}
