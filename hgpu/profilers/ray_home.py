"""What a profile on a Ray cluster keeps at home: its journal and log, and what is sent and told."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from hgpu.core.errors import EngineError, HgpuError
from hgpu.profilers.journal import Entry, Header, append, read
from hgpu.profilers.ray_node import CONFIG, Failed, Measure, Order
from hgpu.profilers.vllm import VllmJob, journal_path

SMALL_FILES = {".json", ".txt", ".model", ".jinja", ".tiktoken"}  # of a model: all but its weights


@contextmanager
def only_here(jobs: Sequence[VllmJob], folder: Path) -> Iterator[None]:
    """Hold the journals of all jobs; raise HgpuError where another process holds one."""
    with ExitStack() as held:
        for job in jobs:
            lock = journal_path(job, folder).with_suffix(".lock")
            lock.parent.mkdir(parents=True, exist_ok=True)
            try:
                held.enter_context(FileLock(lock, timeout=0))
            except Timeout as error:
                raise HgpuError(
                    f"{job.point.name} is being measured already",
                    f"another process holds '{lock}'",
                    "wait for it to end, or stop it",
                ) from error
        yield


def lanes(jobs: Sequence[VllmJob]) -> list[deque[VllmJob]]:
    """Group jobs that must take turns: of one GPU type, or of any CPU; the least demanding first."""
    by_type: dict[str, list[VllmJob]] = {}
    for job in jobs:
        by_type.setdefault("CPU" if job.gpu.is_cpu else job.gpu.name, []).append(job)
    return [deque(sorted(lane, key=_size)) for lane in by_type.values()]


def _size(job: VllmJob) -> int:
    return max(job.gpu.cores, 1) * job.point.tp


def order(job: VllmJob, folder: Path, measure: Measure) -> Order:
    """Return what a node is sent: the job, the points that are home, and a local model's small files."""
    done, model = read(journal_path(job, folder), job.key), Path(job.source)
    if not model.is_dir():
        return Order(job, done, {}, measure)
    files = _files(model, job.load_format)
    return Order(replace(job, source=str(model.resolve())), done, files, measure)


def _files(model: Path, load_format: str) -> Mapping[str, bytes]:
    """Return what tells one model from another; with random weights, all that an engine reads."""
    if load_format != "dummy":
        return {CONFIG: (model / CONFIG).read_bytes()}
    small = [path for path in model.iterdir() if path.suffix in SMALL_FILES and path.is_file()]
    return {path.name: path.read_bytes() for path in sorted(small)}


def keep(job: VllmJob, folder: Path, entries: Sequence[Entry]) -> None:
    """Add to the journal at home; its key is that of the job at home."""
    path = journal_path(job, folder)
    for entry in entries:
        append(path, replace(entry, key=job.key) if isinstance(entry, Header) else entry)


def failure(job: VllmJob, folder: Path, event: Failed, node: str) -> HgpuError:
    """Return a node's error as it reads at home, where its journal and log are; keep the log."""
    path = journal_path(job, folder)
    if event.log:
        path.with_suffix(".log").write_bytes(event.log)
    error = event.error
    if event.stem:
        here = str(path.with_suffix(""))
        error.why, error.fix = (text.replace(event.stem, here) for text in (error.why, error.fix))
    error.why = f"{error.why} (on node {node})"
    return error


def broken(job: VllmJob, error: Exception) -> EngineError:
    """Return why a node couldn't even begin."""
    return EngineError(
        f"the Ray task of {job.point.name} broke",
        _last_line(error),
        "install the same hgpu[ray,vllm] on every node as here",
    )


def lost(job: VllmJob, folder: Path, losses: int, error: Exception) -> EngineError:
    """Return what to say of a job whose nodes are lost too often."""
    kept = len(read(journal_path(job, folder), job.key).runs)
    return EngineError(
        f"{job.point.name} lost its node {losses} times",
        _last_line(error),
        f"see `ray logs`; the same command resumes: {kept} finished points are kept",
    )


def _last_line(error: Exception) -> str:
    return ([line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__])[-1]
