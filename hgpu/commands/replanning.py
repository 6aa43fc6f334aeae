"""Solving a plan again around offers that can't be had, from what the plan itself keeps of its inputs."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from hgpu.artifacts.payloads.plan import PlanPayload
from hgpu.artifacts.store import Artifact
from hgpu.commands.planning import Again, Asked, plan_services
from hgpu.commands.solved_from import read_solved_from
from hgpu.core.errors import Infeasible, InputError
from hgpu.core.offer import Offer
from hgpu.specs.service import service_of

Plan = Artifact[PlanPayload]


def replan_around(root: Path, plan: Plan, held: Mapping[tuple[str, str], int]) -> Plan:
    """Solve a plan again with no more of some offers, by (name, region), than is held; keep the new plan.

    Latency models, prices, limits, confidence and gap are the old plan's. Raises Infeasible where it doesn't
    say what it was solved from, where that has changed since, or where nothing else serves the load.
    """
    found = read_solved_from(plan)
    if found is None:
        raise _unknown(plan, held, "the plan doesn't keep its spec and offers")
    spec, offers = found
    try:
        service = service_of(spec, offers=[_capped(offer, held) for offer in offers])
    except InputError as error:
        raise _unknown(plan, held, f"{error.what}: {error.why}") from error
    if plan.payload.model is None or service.model.digest != plan.payload.model.digest:
        raise _unknown(plan, held, "the model's configuration is another one now")
    files = {(row.role, row.digest) for row in plan.manifest.inputs if row.kind == "file"}
    if files != {(row.role, row.digest) for row in service.files}:
        raise _unknown(
            plan, held, "a trace that it was made from is another one now, or was given by --trace"
        )
    options = plan.manifest.options
    around = {f"{offer}@{region}": count for (offer, region), count in sorted(held.items())}
    asked = Asked(
        specs=[],
        root=root,
        refs=[row.digest for row in plan.manifest.inputs if row.kind == "latency"],
        gap=options["gap"],
        confidence=options["confidence"],
        refine=options["refine"],
        prove=plan.payload.proof is not None,
        requests=plan.payload.proof.requests if plan.payload.proof else None,
        again=Again(plan.as_input("solved again"), around),
        beside=[row.digest for row in plan.manifest.inputs if row.role == "beside"],
    )
    (made,) = plan_services(asked, [service], [spec], [""], set())
    return made


def _capped(offer: Offer, held: Mapping[tuple[str, str], int]) -> Offer:
    count = held.get((offer.name, offer.region))
    if count is None:
        return offer
    return replace(offer, available=count if offer.available is None else min(count, offer.available))


def _unknown(plan: Plan, held: Mapping[tuple[str, str], int], why: str) -> Infeasible:
    offers = ", ".join(f"{offer} in {region}" for offer, region in sorted(held))
    return Infeasible(
        f"{offers} can't be had, and plan {plan.short} can't be solved again",
        why,
        "run `hgpu plan` again without that offer (limits: {OFFER: 0}), or deploy again later",
    )
