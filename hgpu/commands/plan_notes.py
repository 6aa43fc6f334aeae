"""What `hgpu plan` says beside the plan, on stderr: what it rests on."""

from collections.abc import Callable
from datetime import date

from hgpu.catalog.offers import price_date
from hgpu.core.operating_point import names_of
from hgpu.core.provenance import Provenance
from hgpu.latency.confidence import safety_factor
from hgpu.latency.select import Selection
from hgpu.report.output import note
from hgpu.solvers.host_memory import unknown_memory
from hgpu.specs.service import Service

OLD_PRICES_DAYS = 90


def once(said: set[str]) -> Callable[[str], None]:
    """Return what says a line on stderr unless it was said before."""

    def say(line: str) -> None:
        if line not in said:
            said.add(line)
            note(line)

    return say


def say_age(service: Service, said: set[str]) -> None:
    """Tell once how old the prices are, where they are old."""
    days = (date.today() - date.fromisoformat(price_date(service.offers))).days if service.offers else 0
    line = f"prices are up to {days} days old: `hgpu gpus --refresh aws` asks anew, or give a price book"
    if days > OLD_PRICES_DAYS:
        once(said)(line)


def say_memory(service: Service, said: set[str]) -> None:
    """Tell once which machines are taken to have room for experts, though nothing says what they have."""
    if names := unknown_memory(service.offers, service.points):
        once(said)(
            f"mode offload: the memory of {', '.join(names)} isn't in the price book; "
            f"it is taken to hold the {service.model.all_expert_bytes / 2**30:.1f} GiB of experts"
        )


def say_sources(selection: Selection, confidence: float, said: set[str]) -> None:
    """Tell once, on stderr, which latency model stands behind each operating point."""
    names = names_of(selection.chosen)
    for point, artifact in selection.chosen.items():
        latency = artifact.payload.latency
        measured = latency.provenance is Provenance.FITTED
        what = f"error {latency.median_error:.1%}" if measured else "no measurement"
        factor = safety_factor(latency, confidence)
        line = (
            f"{names[point]}: {latency.provenance} latency model {artifact.short} ({what}; "
            f"steps taken {factor - 1:.0%} slower, confidence {confidence:g})"
        )
        once(said)(line)
