"""From fine-tunes to the jobs that are planned: bounds, the choice, and what explains it."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from hgpu.artifacts.payloads.job import BindingRow, JobPayload
from hgpu.core.allocation import Rental
from hgpu.core.errors import InputError, UnknownName
from hgpu.core.offer import Offer
from hgpu.latency.training_select import ActivationChoice
from hgpu.solvers.job_rows import job_payload
from hgpu.solvers.job_short import raise_short
from hgpu.solvers.job_ways import Unusable, Way, runnable, ways_of
from hgpu.solvers.jobs import Bound, Chosen, Jobs, Option, cheapest, choose
from hgpu.solvers.limits import machines_beside, weight_of
from hgpu.specs.finetune_job import Finetune

MEMORY = "GPU memory"


@dataclass(frozen=True, slots=True)
class Planned:
    """A job with the seconds it took to plan all of them."""

    payload: JobPayload
    timings: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class _Asked:
    """All fine-tunes by name, with their ways."""

    finetunes: Mapping[str, Finetune]
    ways: Mapping[str, list[Way]]
    unusable: Mapping[str, list[Unusable]]
    beside: Sequence[Rental]

    def jobs(self, short_too: bool = False) -> tuple[Jobs, list[Way]]:
        """Return the program over the ways that can run, or over those that lack memory too."""
        rows = [
            (name, way) for name, ways in self.ways.items() for way in (ways if short_too else runnable(ways))
        ]
        options = tuple(
            Option(name, way.name, way.cost_usd, way.hours, way.offer, way.machines) for name, way in rows
        )
        bounds = (*self._own(options), *self._shared(options))
        return Jobs(options, bounds), [way for _, way in rows]

    def _own(self, options: Sequence[Option]) -> list[Bound]:
        found = []
        for name, finetune in self.finetunes.items():
            mine = [n for n, option in enumerate(options) if option.job == name]
            label = f"{name} " if len(self.finetunes) > 1 else ""
            if finetune.spec.deadline_h is not None:
                hours = {n: options[n].hours for n in mine}
                found.append(Bound(f"{label}deadline_h", finetune.spec.deadline_h, hours, " h"))
            if finetune.spec.budget_usd is not None:
                costs = {n: options[n].cost_usd for n in mine}
                found.append(Bound(f"{label}budget_usd", finetune.spec.budget_usd, costs, " USD"))
        return found

    def _shared(self, options: Sequence[Option]) -> list[Bound]:
        offers = [offer for finetune in self.finetunes.values() for offer in finetune.offers]
        found = []
        for name, at_most in _limits(list(self.finetunes.values())).items():
            what, _, region = name.partition("@")
            if region and region not in {offer.region for offer in offers}:
                raise UnknownName("region", region, {offer.region for offer in offers})
            weight = weight_of(what, offers)

            def counted(
                offer: Offer, region: str = region, weight: Callable[[Offer], float] = weight
            ) -> float:
                return weight(offer) if region in ("", offer.region) else 0.0

            used = sum(counted(row.offer) * row.machines for row in self.beside)
            weights = {n: counted(o.offer) * o.machines for n, o in enumerate(options) if counted(o.offer)}
            found.append(Bound(f"limits {name}", at_most, weights, used=used))
        for offer in dict.fromkeys(offers):
            if offer.available is not None:
                mine = {n: float(o.machines) for n, o in enumerate(options) if o.offer == offer}
                used = machines_beside(offer, self.beside)
                name = f"{offer.name}@{offer.region} available"
                found.append(Bound(name, offer.available, mine, used=used))
        return found


def plan_jobs(
    finetunes: Mapping[str, Finetune],
    activations: Mapping[str, ActivationChoice],
    beside: Sequence[Rental] = (),
    time_limit_s: float = 60.0,
) -> list[Planned]:
    """Return the cheapest jobs that keep all deadlines, budgets and shared limits; one for each fine-tune.

    Raises Infeasible: for what doesn't fit in memory, with the cheapest change of the spec that does; for
    bounds, with the one in the way and the cheapest way out.
    """
    started = time.perf_counter()
    found = {
        name: ways_of(finetune, partial(activations[name].of, finetune))
        for name, finetune in finetunes.items()
    }
    ways = {name: rows for name, (rows, _) in found.items()}
    unusable = {name: rows for name, (_, rows) in found.items()}
    asked = _Asked(finetunes, ways, unusable, beside)
    for name, finetune in finetunes.items():
        if not any(runnable(ways[name])):
            raise_short(finetune, ways[name], unusable[name], activations[name])
    built = time.perf_counter()
    jobs, rows = asked.jobs()
    chosen = choose(jobs, time_limit_s)
    solved = time.perf_counter()
    binding = _binding(asked, jobs, chosen, time_limit_s)
    timings = {"build_s": built - started, "solve_s": solved - built}
    picked = {jobs.options[number].job: rows[number] for number in chosen.options}
    kept = [n for n in range(len(rows)) if jobs.holds(jobs.others(chosen.options, n))]
    return [
        Planned(
            job_payload(
                name,
                finetune,
                picked[name],
                [rows[n] for n in kept if jobs.options[n].job == name],
                ways[name],
                unusable[name],
                binding,
                [other for other in finetunes if other != name],
                (chosen.variables, chosen.constraints),
            ),
            timings,
        )
        for name, finetune in finetunes.items()
    ]


def _limits(finetunes: Sequence[Finetune]) -> dict[str, int]:
    limits: dict[str, int] = {}
    for finetune in finetunes:
        for name, at_most in finetune.spec.limits.items():
            if limits.setdefault(name, at_most) != at_most:
                raise InputError(
                    f"two specs disagree about the limit '{name}'",
                    f"one says {limits[name]}, another {at_most}, and they share it",
                    "write the same value into both, or the limit into one of them only",
                )
    return limits


def _binding(asked: _Asked, jobs: Jobs, chosen: Chosen, time_limit_s: float) -> list[BindingRow]:
    """Return each bound with the cheapest choice without it, and memory as one of them."""
    rows = []
    for bound in jobs.bounds:
        free = cheapest(jobs.without(bound), time_limit_s)
        rows.append(_row(bound.text, jobs, free, chosen))
    everything, _ = asked.jobs(short_too=True)
    rows.append(_row(MEMORY, everything, cheapest(everything, time_limit_s), chosen))
    return rows


def _row(name: str, jobs: Jobs, free: Chosen | None, chosen: Chosen) -> BindingRow:
    saves = chosen.cost_usd - free.cost_usd if free else 0.0
    binds = saves > 1e-9 * chosen.cost_usd
    without = "; ".join(jobs.options[n].name for n in free.options) if free and binds else ""
    return BindingRow(bound=name, binds=binds, without=without, saves_usd=saves if binds else None)
