"""What the cards' telemetry means for a profile: which runs don't count, and what makes it doubtful."""

import statistics
from collections.abc import Iterator, Sequence

from hgpu.profilers.journal import Run
from hgpu.profilers.telemetry_summary import CardTelemetry

# Reasons that make a card slower than it is sold to be. Being idle, and clocks that somebody set,
# are none: such a card is as fast as it will be in service.
HARMFUL = (
    "SW power cap",
    "HW slowdown",
    "SW thermal slowdown",
    "HW thermal slowdown",
    "HW power brake",
)
THROTTLED_SHARE = 0.1  # of the runs: in more, throttling is a problem of the profile
CLOCK_DROP = 0.1  # below the median over the runs


def invalid(run: Run) -> str:
    """Return why a run must not count, or an empty string: a card met an uncorrected memory error."""
    bad = [card for card in run.telemetry if card.ecc_errors]
    return ", ".join(f"{card.ecc_errors} uncorrected ECC errors on {card.card}" for card in bad)


def valid_runs(runs: Sequence[Run]) -> tuple[Run, ...]:
    """Return the runs that may become samples."""
    return tuple(run for run in runs if not invalid(run))


def problems_of(runs: Sequence[Run]) -> list[str]:
    """Return what makes a profile doubtful: invalid runs, throttling, and clocks that dropped."""
    found = [
        f"{run.script} doesn't count in run {run.repeat + 1}: {reason}"
        for run in runs
        if (reason := invalid(run))
    ]
    return [*found, *_throttling(runs), *_clock_drops(runs)]


def _throttling(runs: Sequence[Run]) -> Iterator[str]:
    """Yield one problem that names every harmful reason with its share of the runs that could tell."""
    told = [names for run in runs if (names := _harmful(run)) is not None]
    throttled = sum(bool(names) for names in told)
    if throttled > THROTTLED_SHARE * len(told):
        counts = {name: sum(name in names for names in told) for name in HARMFUL}
        shares = [f"{name} in {count / len(told):.0%}" for name, count in counts.items() if count]
        yield f"the GPU was throttled in {throttled / len(told):.0%} of the runs: {', '.join(shares)}"


def _harmful(run: Run) -> set[str] | None:
    """Return the harmful reasons that any card gave in a run; None where no card tells reasons."""
    told = [card.throttle for card in run.telemetry if card.throttle is not None]
    return {name for names in told for name in names if name in HARMFUL} if told else None


def _clock_drops(runs: Sequence[Run]) -> Iterator[str]:
    """Yield a problem for each card whose SM clock fell well below its median in some run."""
    clocks: dict[str, list[int]] = {}
    for card in _cards(runs):
        if card.sm_min_mhz is not None:
            clocks.setdefault(card.card, []).append(card.sm_min_mhz)
    for card_name, mhz in sorted(clocks.items()):
        middle = statistics.median(mhz)
        low = [clock for clock in mhz if clock < (1 - CLOCK_DROP) * middle]
        if low:
            share = len(low) / len(mhz)
            yield (
                f"the SM clock of {card_name} fell to {min(low)} MHz "
                f"(median of the runs: {middle:.0f} MHz), below {1 - CLOCK_DROP:.0%} of it in {share:.0%}"
            )


def _cards(runs: Sequence[Run]) -> Iterator[CardTelemetry]:
    return (card for run in runs for card in run.telemetry)
