"""What a GPU's symptoms mean for the engine on it: go on, watch, restart the process, or replace the card.

XID errors are the driver's reports of faults. Which of them a process causes and which the card is from
NVIDIA's "XID Errors" (docs.nvidia.com/deploy/xid-errors); what to do about them is the practice of cluster
operators: a fault of a process is cured by starting it again, one of memory, link or firmware by taking the
card away.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum

RESTARTS = 3  # within RESTARTS_WITHIN_S: a process that fails so often isn't what fails
RESTARTS_WITHIN_S = 3600.0
SUSTAINED_S = 300.0  # of a hardware slowdown: the cooling or the power is at fault
HARDWARE_SLOWDOWNS = ("HW slowdown", "HW thermal slowdown", "HW power brake")
HARMLESS_REASONS = ("none", "idle", "applications clocks setting", "SW power cap", "display clock setting")


class Action(IntEnum):
    """What to do, from nothing to the most."""

    NONE = 0
    WATCH = 1
    RESTART = 2
    REPLACE = 3

    @property
    def words(self) -> str:
        """The action as a user reads it."""
        return ("none", "watch", "restart the engine", "cordon, drain, replace")[self]


class Kind(StrEnum):
    """What a symptom is of."""

    XID = "xid"
    LOST = "lost"
    ECC_UNCORRECTED = "ecc_uncorrected"
    REMAP_PENDING = "remap_pending"
    REMAP_FAILURE = "remap_failure"
    THROTTLE = "throttle"
    ECC_OFF = "ecc_off"
    LINK_WIDTH = "link_width"
    POWER_LIMIT = "power_limit"


@dataclass(frozen=True, slots=True)
class Symptom:
    """Something that a card showed at a moment (s, where it is known): an XID's number, a count, a reason."""

    card: str
    kind: Kind
    value: int | str
    moment_s: float | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """A symptom with what it means and what to do about it."""

    symptom: Symptom
    action: Action
    meaning: str


XIDS: dict[int, tuple[Action, str]] = {
    13: (Action.RESTART, "an exception of the graphics engine: usually a kernel that reads out of bounds"),
    31: (Action.RESTART, "a page fault of GPU memory: usually a bad address of the process"),
    43: (Action.RESTART, "the GPU stopped working for a process after a fault of its own"),
    45: (Action.WATCH, "channels were cleaned up after an earlier error"),
    48: (Action.REPLACE, "an uncorrectable memory error (double bit)"),
    63: (Action.REPLACE, "a memory row was remapped or a page retired; it takes effect at a reset"),
    64: (Action.REPLACE, "a memory row couldn't be remapped, or a page not be retired"),
    74: (Action.REPLACE, "an error of NVLink"),
    79: (Action.REPLACE, "the GPU fell off the bus"),
    92: (Action.WATCH, "many corrected memory errors"),
    94: (Action.REPLACE, "an uncorrectable memory error, contained to its process"),
    95: (Action.REPLACE, "an uncorrectable memory error, not contained"),
    119: (Action.REPLACE, "the GPU's firmware (GSP) didn't answer in time"),
    120: (Action.REPLACE, "an error of the GPU's firmware (GSP)"),
}


def judge(symptoms: Iterable[Symptom]) -> list[Finding]:
    """Return a finding for each symptom, in the order of their moments.

    A fault of a process that comes RESTARTS times within an hour, and a hardware slowdown that lasts
    SUSTAINED_S, are the card's.
    """
    findings: list[Finding] = []
    for symptom in sorted(symptoms, key=lambda s: s.moment_s if s.moment_s is not None else 0.0):
        found = Finding(symptom, *_meaning(symptom))
        findings.append(_escalated(found, findings))
    return findings


def action_by_card(findings: Iterable[Finding]) -> dict[str, Action]:
    """Return the most that has to be done about each card with a finding."""
    actions: dict[str, Action] = {}
    for finding in findings:
        card = finding.symptom.card
        actions[card] = max(actions.get(card, Action.NONE), finding.action)
    return actions


def _meaning(symptom: Symptom) -> tuple[Action, str]:
    value = symptom.value
    if symptom.kind is Kind.XID:
        unknown = (Action.WATCH, "not among the XIDs with a rule here: see NVIDIA's list")
        return XIDS.get(int(value), unknown)
    if symptom.kind is Kind.THROTTLE:
        return _throttled(str(value))
    return {
        Kind.LOST: (Action.REPLACE, "the driver reaches the card no more"),
        Kind.ECC_UNCORRECTED: (
            Action.REPLACE,
            f"{value} uncorrectable memory errors since the driver was loaded",
        ),
        Kind.REMAP_PENDING: (Action.REPLACE, "a memory row waits for a reset to be remapped"),
        Kind.REMAP_FAILURE: (Action.REPLACE, "no spare memory rows are left"),
        Kind.ECC_OFF: (Action.WATCH, "memory errors go unseen: error correction is off"),
        Kind.LINK_WIDTH: (Action.WATCH, f"PCIe runs at {value}: loading and offloading are slower"),
        Kind.POWER_LIMIT: (
            Action.WATCH,
            f"power is limited to {value}: latencies fitted elsewhere don't hold",
        ),
    }[symptom.kind]


def _throttled(reason: str) -> tuple[Action, str]:
    if reason in HARMLESS_REASONS:
        return Action.NONE, "normal under load"
    if reason in HARDWARE_SLOWDOWNS:
        return Action.WATCH, "clocks are halved or lower by the hardware"
    return Action.WATCH, "clocks are lowered"


def _escalated(found: Finding, before: Sequence[Finding]) -> Finding:
    symptom, now_s = found.symptom, found.symptom.moment_s
    if now_s is None:
        return found
    same = [
        earlier
        for earlier in before
        if earlier.symptom.card == symptom.card and earlier.symptom.moment_s is not None
    ]
    if found.action is Action.RESTART:
        recent = [f for f in same if f.symptom.kind is Kind.XID and _is_restart(f)]
        recent = [f for f in recent if now_s - (f.symptom.moment_s or 0.0) <= RESTARTS_WITHIN_S]
        if len(recent) + 1 >= RESTARTS:
            why = f"{len(recent) + 1} faults of processes within an hour: {found.meaning}"
            return Finding(symptom, Action.REPLACE, why)
    if symptom.kind is Kind.THROTTLE and symptom.value in HARDWARE_SLOWDOWNS:
        began_s = _slowed_since_s(symptom, same)
        if now_s - began_s >= SUSTAINED_S:
            return Finding(symptom, Action.REPLACE, f"slowed by the hardware for {now_s - began_s:.0f} s")
    return found


def _is_restart(finding: Finding) -> bool:
    return XIDS.get(int(finding.symptom.value), (Action.NONE, ""))[0] is Action.RESTART


def _slowed_since_s(symptom: Symptom, same: Sequence[Finding]) -> float:
    """Return since when a card tells of one slowdown; a moment at which it tells of others only ends it."""
    assert symptom.moment_s is not None
    reasons: dict[float, set[int | str]] = {}
    for finding in same:
        if finding.symptom.kind is Kind.THROTTLE and finding.symptom.moment_s is not None:
            reasons.setdefault(finding.symptom.moment_s, set()).add(finding.symptom.value)
    began_s = symptom.moment_s
    for moment_s in sorted(reasons, reverse=True):
        if moment_s < symptom.moment_s and symptom.value not in reasons[moment_s]:
            break
        began_s = moment_s
    return began_s
