"""Why a plan is what it is, as tables."""

from rich.table import Table

from hgpu.artifacts.payloads.plan import Explanation, Proof
from hgpu.report.output import table, usd


def explanation_tables(explanation: Explanation | None) -> list[Table]:
    """Return what binds and what it is worth, the runner-up, and where the choice changes."""
    if explanation is None:
        return []
    prices = table("what a bound is worth", "bound", "binds", "moved by", ">changes USD/h by")
    for row in explanation.prices:
        changed = "can't be met" if row.change_usd_per_hour is None else f"{row.change_usd_per_hour:+.2f}"
        prices.add_row(row.bound, "yes" if row.binding else "no", row.step, changed)
    others = table("runners-up", "without", "fleet", ">USD/h")
    for other in explanation.alternatives:
        others.add_row(other.without, other.fleet, _cost(other.cost_usd_per_hour))
    flips = table("at other rates", ">rate/s", "fleet", ">USD/h")
    for flip in explanation.flips:
        flips.add_row(f"{flip.rate_rps:g}", flip.fleet, _cost(flip.cost_usd_per_hour))
    return [prices, others, flips]


def proof_tables(proof: Proof | None) -> list[Table]:
    """Return the plans that were simulated, the unproved one first and the answer last.

    Plans that differ from the next one by their headroom alone share its row.
    """
    if proof is None:
        return []
    rows = table("proof: simulated plans", "fleet", ">USD/h", ">attained", ">promised", "headroom")
    for tried, after in zip(proof.rounds, [*proof.rounds[1:], None], strict=True):
        if after and (tried.fleet, tried.attained) == (after.fleet, after.attained):
            continue
        headroom = ", ".join(f"{point} {factor:.2f}" for point, factor in tried.headroom.items())
        attained = f"{tried.attained:.2%}" + ("" if tried.attained >= tried.target - 1e-9 else " ✗")
        rows.add_row(tried.fleet, usd(tried.cost_usd_per_hour), attained, f"{tried.target:.1%}", headroom)
    return [rows]


def proof_text(proof: Proof) -> str:
    """Return what was proved, in a sentence."""
    said = "holds" if proof.held else "does NOT hold: no fleet within the limits met every objective"
    return f"the plan {said}, simulated on {proof.requests:,} requests: {proof.trace}"


def _cost(usd_per_hour: float | None) -> str:
    return "-" if usd_per_hour is None else usd(usd_per_hour)
