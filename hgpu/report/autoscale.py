"""A scaling decision in the terminal and as JSON."""

from typing import Any

from hgpu.report.output import console, rps, table, usd
from hgpu.runtime.control.watch import Decided


def decision_json(decided: Decided) -> dict[str, Any]:
    """Return the decision, pool by pool."""
    decision = decided.decision
    return {
        "plan": decided.plan_digest,
        "status": str(decision.outcome),
        "reason": decision.reason,
        "rate_rps": decision.rate_rps,
        "forecast_rps": decision.forecast_rps,
        "need_rps": decision.need_rps,
        "served": decision.served,
        "beyond": decision.beyond,
        "usd_per_hour": decision.usd_per_hour,
        "pools": [
            {
                "pool": pool.name,
                "gpu": pool.point.gpu,
                "answering": answering,
                "engines": engines,
                "goal": goal,
                "max": pool.most,
            }
            for pool, answering, engines, goal in zip(
                decided.pools, decided.answering, decision.engines, decision.goal, strict=True
            )
        ],
        "unprofiled": list(decided.unprofiled),
        "silent": list(decided.silent),
    }


def print_decision(decided: Decided) -> None:
    """Print the load and what each pool is to have."""
    decision, out = decided.decision, console()
    out.print(
        f"{rps(decision.rate_rps)} requests/s now, up to {rps(decision.forecast_rps)} forecast, "
        f"{decision.need_rps:.2f} to carry: {usd(decision.usd_per_hour)} USD/h",
        soft_wrap=True,
    )
    rows = table("", "pool", "GPU", ">answer", ">engines", ">goal", ">cap")
    for pool, answering, engines, goal in zip(
        decided.pools, decided.answering, decision.engines, decision.goal, strict=True
    ):
        cap = "-" if pool.most is None else str(pool.most)
        rows.add_row(pool.name, pool.point.gpu, str(answering), str(engines), str(goal), cap)
    out.print(rows)
    lines = [f"{decision.outcome}: {decision.reason}"] if decision.reason else []
    if decision.beyond:
        lines.append(f"{decision.beyond:.2%} of requests are served by no pool within the objectives")
    lines += [f"pool {pool} is left as it is: it has no latency model" for pool in decided.unprofiled]
    for line in [*lines, *(f"no answer: {line}" for line in decided.silent)]:
        out.print(line, markup=False, soft_wrap=True)
