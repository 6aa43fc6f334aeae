"""Engines run in the mode that was planned, or not at all."""

from dataclasses import replace

from hgpu.artifacts.payloads.plan import AllocationRow, PlanPayload
from hgpu.core.errors import InputError
from hgpu.core.operating_point import Mode

_LOCAL = (Mode.PD, Mode.OFFLOAD)


def require_mixed(row: AllocationRow) -> None:
    """Raise InputError for a mode that nothing can start: a `mixed` engine in its place isn't as planned."""
    if row.point.mode is not Mode.MIXED or row.mode != Mode.MIXED:
        raise InputError(
            f"pool '{row.pool}' runs in mode '{row.mode}'",
            "hgpu starts engines in mode 'mixed' there only, so far",
            f"plan without that mode{', or deploy to `local`' if row.mode in _LOCAL else ''}",
        )


def is_pair(row: AllocationRow) -> bool:
    """Tell whether a pool's engines are pairs: one that computes prompts, and one that decodes.

    A row in mode `pd` with `phases` is one engine, whose scheduler keeps prompts and decodes apart.
    Raises InputError for a mode that nothing can start.
    """
    if (row.point.mode, row.mode) == (Mode.PD, Mode.PD):
        return row.phases is None
    if (row.point.mode, row.mode) == (Mode.OFFLOAD, Mode.OFFLOAD):
        return False
    require_mixed(row)
    return False


def paired(plan: PlanPayload) -> PlanPayload:
    """Return a plan whose engines run as pairs, each in the place that was planned for one.

    What was predicted of them doesn't hold then. Raises InputError for engines in yet another mode.
    """
    rows = [row if is_pair(row) else as_pair(row) for row in plan.allocation]
    return plan.model_copy(update={"allocation": rows})


def as_pair(row: AllocationRow) -> AllocationRow:
    """Return a row as one of pairs, each of whose engines has vLLM's own scheduler."""
    point = replace(row.point, mode=Mode.PD)
    return row.model_copy(update={"mode": str(Mode.PD), "point": point, "phases": None})
