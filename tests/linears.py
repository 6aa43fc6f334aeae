"""Linear modules of given shapes, for counting what is trained of them."""

from collections.abc import Sequence

from hgpu.core.training import Linear


def linears(shapes: Sequence[tuple[int, int]]) -> list[Linear]:
    """Return a module for each (out, in)."""
    return [Linear("weight", inner, out, 1) for out, inner in shapes]
