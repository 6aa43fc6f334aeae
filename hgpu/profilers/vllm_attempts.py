"""Measuring in as many engine processes as it takes: one that fails costs the script that it failed at.

That script isn't tried again before the next start of the profile; the others go on in a fresh
process, for a device that ran out of memory or raised an error can't be trusted any more.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from hgpu.core.errors import EngineError
from hgpu.profilers.journal import Failure, append, read
from hgpu.profilers.vllm_events import Limits
from hgpu.profilers.vllm_job import WorkerJob, missing
from hgpu.profilers.vllm_process import Progress, follow, worker

MOST_RESTARTS = 5  # an engine that fails at more scripts than this is broken, not short of room


def attempt_all(
    order: WorkerJob, environment: Mapping[str, str], python: str, progress: Progress, limits: Limits
) -> None:
    """Measure what the journal lacks, and journal the failures among it.

    Raises EngineError where an engine doesn't start, or too many scripts fail.
    """
    path, failures = Path(order.journal), list[Failure]()
    while _something_left(order):
        with worker(order, environment, python) as process:
            failure = follow(process, path, order.key, progress, limits)
        if failure is None:
            return
        append(path, failure)
        failures.append(failure)
        if len(failures) > MOST_RESTARTS:
            raise _broken(failures, path, order.key)
        order = replace(order, failed=(*order.failed, failure.script))


def _something_left(order: WorkerJob) -> bool:
    """Tell whether a script is to be run, or, after a failure, to be run again for certainty."""
    journal = read(Path(order.journal), order.key)
    if journal.header is None or missing(order, journal):
        return True
    return bool(order.failed and order.budget_s and journal.runs)


def _broken(failures: list[Failure], path: Path, key: str) -> EngineError:
    kept = len(read(path, key).runs)
    return EngineError(
        f"vLLM failed at {len(failures)} scripts: {', '.join(failure.script for failure in failures)}",
        "; ".join(dict.fromkeys(failure.reason for failure in failures)),
        f"see '{path.with_suffix('.log')}'; the same command resumes: {kept} finished points are kept",
    )
