"""Estimates in the terminal and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from hgpu.report.output import console, ms, table
from hgpu.simulator.answers import Answer
from hgpu.simulator.harness import Harness


def print_estimates(answers: Sequence[Answer], harness: Harness) -> None:
    """Print a row a point; a point without an answer has its reason instead."""
    rows = table(
        f"closed loop of {harness.requests_per_slot} requests a slot; {_lengths(answers)}; "
        "means over all requests",
        "model", "gpu", ">tp", "dtype", ">in", ">out", ">in flight",
        ">TTFT ms", ">TPOT ms", ">tokens/s", "provenance", "source",
    )  # fmt: skip
    for answer in answers:
        asked = answer.asked
        formats = asked.dtype if asked.kv_dtype is None else f"{asked.dtype}, KV {asked.kv_dtype}"
        load = (asked.tp, formats, asked.input_tokens, asked.output_tokens, asked.concurrency)
        rows.add_row(asked.model_name, asked.gpu_name, *(str(part) for part in load), *_figures(answer))
    console().print(rows)
    for number, answer in enumerate(answers, 1):
        if answer.error:
            console().print(f"row {number} has no answer: {answer.error}", markup=False)


def estimates_json(answers: Sequence[Answer], harness: Harness) -> dict[str, Any]:
    """Return the rows as they were asked with their figures, and how the load was made."""
    return {"estimates": [_row(answer) for answer in answers], "harness": asdict(harness)}


def _lengths(answers: Sequence[Answer]) -> str:
    """Say how far lengths reach below the nominal, where that is the same in all rows."""
    stated = {(a.harness.input_spread, a.harness.output_spread, a.harness.drift_tokens) for a in answers}
    if len(stated) > 1:
        return "lengths as the rows state"
    ((inputs, outputs, drift_tokens),) = stated
    return f"inputs reach {inputs:.0%} below nominal, outputs {outputs:.0%} or {drift_tokens} tokens"


def _figures(answer: Answer) -> tuple[str, ...]:
    if answer.figures is None or answer.choice is None:
        return ("-", "-", "-", "-", "no answer")
    figures = answer.figures
    return (
        ms(figures.ttft_s),
        "-" if figures.tpot_s is None else ms(figures.tpot_s),
        f"{figures.output_tok_per_s:,.0f}",
        str(answer.provenance),
        f"{answer.choice.source} {answer.choice.artifact.short}",
    )


def _row(answer: Answer) -> dict[str, Any]:
    asked, figures, choice = answer.asked, answer.figures, answer.choice
    return {
        "model": asked.model_name,
        "gpu": asked.gpu_name,
        "tp": asked.tp,
        "dtype": str(asked.dtype),
        "kv_dtype": str(asked.kv_dtype or asked.model.kv_dtype),
        "input_tokens": asked.input_tokens,
        "output_tokens": asked.output_tokens,
        "concurrency": asked.concurrency,
        "input_spread": answer.harness.input_spread,
        "output_spread": answer.harness.output_spread,
        "max_num_batched_tokens": answer.engine and answer.engine.max_num_batched_tokens,
        "ttft_s": figures and figures.ttft_s,
        "tpot_s": figures and figures.tpot_s,
        "output_tok_per_s": figures and figures.output_tok_per_s,
        "provenance": answer.provenance,
        "source": choice and choice.source,
        "latency": choice and choice.artifact.digest,
        "note": choice.note or None if choice else None,
        "error": answer.error or None,
    }
