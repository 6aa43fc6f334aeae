"""`hgpu doctor`: are the GPUs fit to serve?"""

from pathlib import Path
from typing import Annotated

import typer

from hgpu.commands.options import Json

app = typer.Typer(add_completion=False)


@app.command()
def doctor(
    replay: Annotated[
        Path | None, typer.Option(help="Judge a kernel log or JSON lines instead; - for standard input.")
    ] = None,
    json: Json = False,
) -> None:
    """Say of each attached GPU whether it is fit, and what to do where it isn't.

    Exit code 0 fit (perhaps to be watched), 4 where an engine must be restarted or a card replaced.

    Example: hgpu doctor --replay dmesg.txt
    """
    from hgpu.core.errors import InputError
    from hgpu.report.doctor import doctor_json, print_cards, print_findings
    from hgpu.report.output import print_json
    from hgpu.runtime.doctor import examine
    from hgpu.runtime.fault_log import symptoms_of_file
    from hgpu.runtime.faults import Action, action_by_card, judge

    cards = examine() if replay is None else []
    if replay is None and not cards:
        raise InputError(
            "no NVIDIA GPU is attached here",
            "NVML finds no driver",
            "run it on a machine with GPUs, or --replay its kernel log",
        )
    symptoms = [symptom for card in cards for symptom in card.symptoms]
    findings = judge(symptoms if replay is None else symptoms_of_file(replay))
    if json:
        print_json(doctor_json(cards, findings))
    else:
        print_cards(cards, findings)
        print_findings(findings, replay)
    if max(action_by_card(findings).values(), default=Action.NONE) >= Action.RESTART:
        raise typer.Exit(4)
