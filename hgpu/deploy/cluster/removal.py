"""Taking a deployment's objects out of a cluster, and proving that none is left."""

import time
from collections.abc import Callable, Sequence

from hgpu.core.errors import HgpuError
from hgpu.deploy.cluster.api import POD, RENDERED_KINDS, WATCH_S, Cluster, Kind

GONE_TIMEOUT_S = 300.0  # pods may take 120 s for requests in flight


def name_of(kind: Kind, name: str) -> str:
    """Return how an object is called in an intent, and to a user."""
    return f"{kind.name}/{name}"


def everything(cluster: Cluster, selector: str) -> list[tuple[Kind, str]]:
    """Return the objects of the rendered kinds with the labels; those that spread load before engines."""
    return [
        (kind, one["metadata"]["name"]) for kind in RENDERED_KINDS for one in cluster.find(kind, selector)
    ]


def remove(cluster: Cluster, objects: Sequence[tuple[Kind, str]]) -> None:
    """Delete objects; what they own goes with them."""
    for kind, name in objects:
        cluster.delete(kind, name)


def prove_gone(
    cluster: Cluster,
    selector: str,
    name: str,
    alive: Callable[[], None],
    kept: Sequence[tuple[Kind, str]] = (),
    timeout_s: float = GONE_TIMEOUT_S,
) -> None:
    """Wait until no object with the labels is left but those to keep; without any, no pod either.

    `alive` is called from time to time.
    Raises HgpuError naming what is left.
    """
    deadline = time.monotonic() + timeout_s
    left: list[tuple[Kind, str]] = []
    for kind in RENDERED_KINDS if kept else (*RENDERED_KINDS, POD):
        surplus = _surplus(cluster, kind, selector, kept)
        while surplus and time.monotonic() < deadline:
            alive()
            surplus = _surplus(cluster, kind, selector, kept)
        left += surplus
    if left:
        raise HgpuError(
            f"deployment '{name}' is not gone",
            f"after {timeout_s:g} s there are: {', '.join(name_of(*one) for one in left)}",
            "see what holds them (finalizers, a node that doesn't answer), then destroy again",
        )


def _surplus(
    cluster: Cluster, kind: Kind, selector: str, kept: Sequence[tuple[Kind, str]]
) -> list[tuple[Kind, str]]:
    """Watch a kind until nothing surplus is left of it, or for a while; return what is."""
    surplus: list[tuple[Kind, str]] = []
    for found in cluster.changes(kind, selector, WATCH_S):
        there = [(kind, str(one["metadata"]["name"])) for one in found]
        surplus = [one for one in there if one not in kept]
        if not surplus:
            break
    return surplus
