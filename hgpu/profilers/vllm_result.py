"""What a journal of vLLM's steps comes to: samples of the runs that count, and every doubt about them."""

from pathlib import Path

from hgpu.core.errors import EngineError
from hgpu.core.provenance import Provenance
from hgpu.profilers.journal import Journal
from hgpu.profilers.result import ProfileResult
from hgpu.profilers.samples import Sample, merge_steps, noise_of
from hgpu.profilers.telemetry_rules import invalid, problems_of, valid_runs
from hgpu.profilers.telemetry_summary import RunTelemetry

NOISE_LIMIT = 0.15


def nothing_measured(point: str, journal: Journal, path: Path) -> EngineError:
    """Return why there is no profile of an operating point."""
    reasons = [skip.reason for skip in journal.skips]
    reasons += [failure.reason for failure in journal.unmade]
    reasons += [invalid(run) for run in journal.runs]
    again = f"see '{path.with_suffix('.log')}'; the same command tries again"
    afresh = f"reset the GPU or take another, and delete '{path}' to start afresh"
    return EngineError(
        f"nothing of {point} could be measured",
        "; ".join(dict.fromkeys(reasons)),
        afresh if journal.runs else again,
    )


def result_of(journal: Journal, seconds: float) -> ProfileResult:
    """Return the samples of the runs that count, and what makes them doubtful."""
    assert journal.header is not None
    samples = _samples(journal)
    problems = _problems(journal)
    noise = noise_of(samples)
    if noise > NOISE_LIMIT:
        problems.append(f"repeated steps differ by {noise:.0%} (median): the machine was busy")
    return ProfileResult(
        profiler="vllm",
        provenance=Provenance.MEASURED,
        samples=tuple(samples),
        kv_capacity_tokens=journal.header.kv_capacity_tokens,
        engine=journal.header.engine,
        driver=journal.header.driver,
        machine=journal.header.machine,
        seconds=seconds,
        problems=tuple(problems),
        telemetry=tuple(
            RunTelemetry(run.script, run.repeat, run.telemetry) for run in journal.runs if run.telemetry
        ),
    )


def _problems(journal: Journal) -> list[str]:
    problems = [f"{skip.script} was not run: {skip.reason}" for skip in journal.skips]
    problems += [f"{lost.script} failed in run {lost.repeat + 1}: {lost.reason}" for lost in journal.unmade]
    return problems + problems_of(journal.runs)


def _samples(journal: Journal) -> list[Sample]:
    runs = sorted(valid_runs(journal.runs), key=lambda run: run.repeat)
    names = dict.fromkeys(run.script for run in runs)
    return [
        sample
        for name in names
        for sample in merge_steps(name, [run.steps for run in runs if run.script == name])
    ]
