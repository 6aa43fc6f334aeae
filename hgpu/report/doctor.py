"""The health of GPUs in the terminal and as JSON."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from hgpu.report.output import console, table
from hgpu.runtime.doctor import Examined
from hgpu.runtime.faults import Action, Finding, action_by_card


def print_cards(cards: Sequence[Examined], findings: Sequence[Finding]) -> None:
    """Print a row a card; nothing where a log was judged."""
    if not cards:
        return
    actions = action_by_card(findings)
    rows = table("attached GPUs", "card", "type", "NVML's name", "driver", "to do", "not told")
    for row in cards:
        known = (row.name, row.card.gpu or "not in the catalog", row.card.nvml_name, row.card.driver_version)
        action = actions.get(row.name, Action.NONE)
        rows.add_row(*map(Text, (*known, action.words, ", ".join(row.unknown))))
    console().print(rows)


def print_findings(findings: Sequence[Finding], replayed: Path | None) -> None:
    """Print a row a symptom, and for a log what to do about each of its cards."""
    if not findings:
        console().print("no symptom" if replayed is None else f"no symptom in {replayed}", markup=False)
        return
    rows = table("symptoms", ">at s", "card", "symptom", "to do", "because")
    for found in findings:
        symptom = found.symptom
        moment = "" if symptom.moment_s is None else f"{symptom.moment_s:.1f}"
        told = f"{symptom.kind} {symptom.value}"
        rows.add_row(*map(Text, (moment, symptom.card, told, found.action.words, found.meaning)))
    console().print(rows)
    if replayed is not None:
        for card, action in sorted(action_by_card(findings).items()):
            console().print(f"{card}: {action.words}", markup=False, soft_wrap=True)


def doctor_json(cards: Sequence[Examined], findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the cards and findings as data; `cards` is empty where a log was judged."""
    actions = action_by_card(findings)
    return {
        "cards": [
            {
                "card": row.name,
                "gpu": row.card.gpu,
                "nvml_name": row.card.nvml_name,
                "uuid": row.card.uuid,
                "driver_version": row.card.driver_version,
                "not_told": list(row.unknown),
            }
            for row in cards
        ],
        "findings": [
            {
                "time_s": found.symptom.moment_s,
                "card": found.symptom.card,
                "symptom": str(found.symptom.kind),
                "value": found.symptom.value,
                "action": found.action.name.lower(),
                "meaning": found.meaning,
            }
            for found in findings
        ],
        "actions": {card: action.name.lower() for card, action in sorted(actions.items())},
    }
