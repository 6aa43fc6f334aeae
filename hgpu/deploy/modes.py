"""Engines run in the mode that was planned, or not at all."""

from hgpu.artifacts.payloads.plan import AllocationRow
from hgpu.core.errors import InputError
from hgpu.core.operating_point import Mode


def require_mixed(row: AllocationRow) -> None:
    """Raise InputError for a mode that nothing can start: a `mixed` engine in its place isn't as planned."""
    if row.point.mode is not Mode.MIXED or row.mode != Mode.MIXED:
        raise InputError(
            f"pool '{row.pool}' runs in mode '{row.mode}'",
            "hgpu starts engines in mode 'mixed' only, so far",
            "plan without that mode",
        )
