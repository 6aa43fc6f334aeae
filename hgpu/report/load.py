"""Load tests in the terminal and as JSON."""

from typing import Any

import typer

from hgpu.artifacts.payloads.load import LoadPayload, LoadPoint, SearchAnswer, Selftest, Spread
from hgpu.artifacts.store import Artifact
from hgpu.core.errors import InvalidMeasurement
from hgpu.report.output import console, ms, note, print_json, table

_COLUMNS = (
    ">requests", ">errors", ">sent/s", ">tok/s", ">TTFT p50", ">p99", ">TPOT p50", ">p99", ">ITL p99",
    ">e2e p99", ">within", ">goodput/s", ">lag p99",
)  # fmt: skip


def finish_load(artifact: Artifact[LoadPayload], json: bool) -> None:
    """Print a load test and end with the exit code that it calls for."""
    print_json(load_json(artifact)) if json else print_load(artifact)
    validity = artifact.manifest.validity
    if not validity.valid:
        # No error: with --json it would be a second document behind the load test.
        note(f"the measurement isn't valid: {'; '.join(validity.reasons)[:500]}")
        raise typer.Exit(InvalidMeasurement.exit_code)
    answer = artifact.payload.search
    if answer and not answer.highest_rps:
        raise typer.Exit(5 if answer.undecided_rps else 3)


def print_load(artifact: Artifact[LoadPayload]) -> None:
    """Print a line a point; latencies in milliseconds."""
    payload, out = artifact.payload, console()
    out.print(
        f"[bold]{payload.model}[/bold] at {payload.url} ({payload.api}), lengths {payload.lengths}; "
        "latencies in ms, measured, from the intended send",
        soft_wrap=True,
    )
    rows = table("", "point", *_COLUMNS)
    for point in payload.points:
        rows.add_row(*_cells(point))
    out.print(rows)
    for point in payload.points:
        for reason in point.validity.reasons:
            out.print(f"INVALID {point.name}: {reason}", markup=False, soft_wrap=True)
    if payload.search:
        out.print(_answer(payload.search), soft_wrap=True)
    if payload.selftest:
        print_selftest(payload.selftest)
    out.print(f"load {artifact.short}  {artifact.path}", soft_wrap=True)


def print_selftest(selftest: Selftest) -> None:
    """Print what the generator can do."""
    console().print(
        f"generator: {selftest.requests_per_s_and_core:,.0f} streamed requests of 4 tokens a second and "
        "core; "
        f"adds {ms(selftest.added_ttft_p50_s)} ms (p50), {ms(selftest.added_ttft_p99_s)} ms (p99) to a TTFT "
        f"({selftest.machine})",
        soft_wrap=True,
    )


def load_json(artifact: Artifact[LoadPayload]) -> dict[str, Any]:
    """Return the payload with digest, path and validity."""
    return {
        **artifact.payload.model_dump(mode="json"),
        "digest": artifact.digest,
        "path": str(artifact.path),
        "validity": artifact.manifest.validity.model_dump(),
    }


def _cells(point: LoadPoint) -> list[str]:
    within = point.attainment.get("all")
    return [
        f"{point.arrivals} {point.name}",
        str(point.requests),
        str(point.errors),
        f"{point.achieved_rps:.2f}",
        f"{point.output_tok_per_s:.0f}",
        *_pair(point.ttft_s),
        *_pair(point.tpot_s),
        _pair(point.itl_s)[1],
        _pair(point.e2e_s)[1],
        "" if within is None else f"{within:.1%}",
        "" if point.goodput_rps is None else f"{point.goodput_rps:.2f}",
        ms(point.harness_lag_p99_s),
    ]


def _pair(spread: Spread | None) -> tuple[str, str]:
    return (ms(spread.p50), ms(spread.p99)) if spread else ("", "")


def _answer(answer: SearchAnswer) -> str:
    undecided = ", ".join(f"{rate:g}" for rate in answer.undecided_rps)
    told = f"; too few requests to tell at {undecided}" if undecided else ""
    if not answer.highest_rps:
        return f"no rate keeps the objectives; {answer.failed_rps or 0:g} requests/s don't{told}"
    above = f", {answer.failed_rps:g} don't" if answer.failed_rps else ", and no rate that was tried doesn't"
    return f"[bold]{answer.highest_rps:g} requests/s[/bold] keep the objectives{above}{told}"
