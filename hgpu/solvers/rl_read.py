"""From a spec of `kind: rl` to the problem that its placement solves."""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from hgpu.artifacts.digest import file_digest
from hgpu.artifacts.manifest import InputRef
from hgpu.catalog.gpus import resolve_gpu
from hgpu.catalog.offers import load_offers, select_offers
from hgpu.core.errors import InputError
from hgpu.core.offer import Offer
from hgpu.latency.rl_profile import Curve, GenerationLaw, TrainingLaw, profile_of
from hgpu.solvers.rl_problem import Component, Limits, Loop, Pool, Problem
from hgpu.specs.rl import ComponentSpec, Law, PoolSpec, RlSpec, Workflow
from hgpu.specs.rl_rows import read_rows
from hgpu.specs.service import check_age

Seconds = Mapping[str, Mapping[int, float]]
NODE_GPUS = 8  # of a pool that doesn't say, where its price isn't an offer's


@dataclass(frozen=True, slots=True)
class Read:
    """A problem, the files that it was read from, and the offers that its prices are from."""

    problem: Problem
    files: tuple[InputRef, ...]
    offers: tuple[Offer, ...]


def read_problem(spec: RlSpec, today: date | None = None) -> Read:
    """Return the problem that a spec describes; reads its profiles and prices.

    Raises InputError or UnknownName for whatever the spec names and can't be used.
    """
    rows, files = _file_seconds(spec)
    embodied = spec.workflow is Workflow.EMBODIED
    components = []
    for component in spec.ordered:
        if component.name in rows and component.seconds:
            raise InputError(
                f"component '{component.name}' has two profiles",
                f"seconds in the spec, and rows in {spec.profile}",
                "keep one of them",
            )
        of_steps = embodied and component.name != "actor" and spec.profiled == "rollout"
        found = rows.get(component.name, component.seconds)
        components.append(_component(component, found, (spec.steps or 1) if of_steps else 1))
    offers = _offers(spec, today or date.today())
    iterations = spec.iterations or 1
    problem = Problem(
        tuple(components),
        tuple(_pool(pool, offers) for pool in spec.pools),
        Loop(
            embodied,
            spec.batches or 1,
            spec.steps or 1,
            spec.envs or 1,
            spec.group_size,
            tuple(sorted(set(spec.stages))),
            spec.switch_s,
            spec.sync_s,
        ),
        tuple(spec.modes),
        spec.objective == "time",
        Limits(
            (spec.deadline_h or math.inf) * 3600 / iterations,
            (spec.budget_usd or math.inf) / iterations,
        ),
    )
    return Read(problem, files, tuple(offers[gpu] for gpu in offers))


def _file_seconds(spec: RlSpec) -> tuple[dict[str, Seconds], tuple[InputRef, ...]]:
    if spec.profile is None:
        return {}, ()
    path = Path(spec.profile)
    found: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in read_rows(path):
        counts = found[row.component][row.gpu]
        if row.count in counts:
            raise InputError(
                f"{path} has two rows of {row.component} on {row.gpu} with {row.count}",
                f"{counts[row.count]:g} s and {row.seconds:g} s",
                "keep one, or their mean",
            )
        counts[row.count] = row.seconds
    unknown = set(found) - {component.name for component in spec.components}
    if unknown:
        raise InputError(
            f"{path} has rows of {', '.join(sorted(unknown))}",
            "the spec has no such component",
            "name it under components, or drop the rows",
        )
    return dict(found), (InputRef(role="profile", kind="file", digest=file_digest(path)),)


def _component(spec: ComponentSpec, seconds: Seconds, steps: int) -> Component:
    if not seconds:
        raise InputError(
            f"component '{spec.name}' has no profile",
            "neither seconds in the spec nor rows in a file",
            "measure it, and give its seconds",
        )
    curves: dict[str, Curve] = {}
    for name, points in seconds.items():
        gpu = resolve_gpu(name).name
        if gpu in curves:
            raise InputError(f"component '{spec.name}' has {gpu} twice", f"'{name}' is it too", "keep one")
        curves[gpu] = _curve(spec, {count: value / steps for count, value in points.items()})
    return Component(spec.name, curves, spec.model_parallel, spec.divides or 0, spec.source)


def _curve(spec: ComponentSpec, points: Mapping[int, float]) -> Curve:
    if spec.law is Law.MEASURED:
        return profile_of(points)
    if len(points) > 1 or spec.name == "env":
        raise InputError(
            f"component '{spec.name}' can't be scaled by {spec.law}",
            "RLinf's estimates are of one measured number of GPUs"
            if spec.name != "env"
            else "it is a simulator",
            "drop the law, or give one point",
        )
    ((gpus, seconds),) = points.items()
    if spec.law is Law.RLINF_TRAINING:
        return TrainingLaw(gpus, seconds)
    return GenerationLaw(gpus, seconds, spec.model_parallel, spec.requests or 0, spec.running_requests or 0)


def _offers(spec: RlSpec, today: date) -> dict[str, Offer]:
    """Return the cheapest offer of each pool without a price, by GPU type."""
    wanted = [resolve_gpu(pool.gpu).name for pool in spec.pools if pool.usd_per_gpu_hour is None]
    if not wanted:
        return {}
    found = select_offers(
        load_offers(spec.offers.book),
        gpus=wanted,
        clouds=spec.offers.clouds,
        markets=[str(market) for market in spec.offers.markets],
        regions=spec.offers.regions,
    )
    cheapest: dict[str, Offer] = {}
    for offer in sorted(found, key=lambda row: (row.usd_per_gpu_hour, row.name, row.region)):
        cheapest.setdefault(offer.gpu, offer)
    for gpu in wanted:
        if gpu not in cheapest:
            raise InputError(
                f"the pool of {gpu} has no price",
                f"no offer of the book '{spec.offers.book}' has it within the spec's filters",
                "give the pool a usd_per_gpu_hour, or widen offers",
            )
    check_age(list(cheapest.values()), spec.offers.max_price_age_days, today)
    return cheapest


def _pool(spec: PoolSpec, offers: Mapping[str, Offer]) -> Pool:
    gpu = resolve_gpu(spec.gpu).name
    if spec.usd_per_gpu_hour is not None:
        return Pool(
            gpu, spec.gpus, spec.gpus_per_node or NODE_GPUS, spec.usd_per_gpu_hour, spec.pay, "the spec"
        )
    offer = offers[gpu]
    if spec.gpus_per_node not in (None, offer.gpu_count):
        raise InputError(
            f"the pool of {gpu} has nodes of {spec.gpus_per_node} GPUs",
            f"its price is that of {offer.name}, which has {offer.gpu_count}",
            "give the pool a usd_per_gpu_hour, or drop gpus_per_node",
        )
    gpus = spec.gpus if offer.available is None else min(spec.gpus, offer.available * offer.gpu_count)
    source = f"{offer.name}, {offer.region}, {offer.price_date}"
    return Pool(gpu, gpus, offer.gpu_count, offer.usd_per_gpu_hour, spec.pay, source, offer)
