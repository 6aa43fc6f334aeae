"""Profiling on a Ray cluster, the far side: an actor on the node that has the accelerator.

It binds the job to the devices that Ray gave it, or to cores of the node, measures in a thread,
and hands out every finished point as it is made: what was told survives the node.
"""

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue

import psutil

from hgpu.catalog.gpus import attached_gpus
from hgpu.core.errors import EngineError, HgpuError, InputError
from hgpu.profilers.journal import Entry, Journal, append, read
from hgpu.profilers.result import ProfileResult
from hgpu.profilers.vllm import VllmJob, journal_path, profile_vllm
from hgpu.profilers.vllm_process import Progress

Measure = Callable[[VllmJob, Path, Progress], ProfileResult]

CONFIG = "config.json"
LOG_BYTES = 2**20  # of an engine's log that is sent home where it fails
SCRATCH = "hgpu-ray"


@dataclass(frozen=True, slots=True)
class Order:
    """What a node is asked for. `done` is what is home already.

    `files` are the small files of a model that is a folder at home; there are none for a
    Hugging Face id.
    """

    job: VllmJob
    done: Journal
    files: Mapping[str, bytes]
    measure: Measure


@dataclass(frozen=True, slots=True)
class Progressed:
    """Points finished of all, the one at hand, and what the journal has gained."""

    done: int
    total: int
    at: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Done:
    """The measurement is complete."""

    result: ProfileResult
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """The measurement failed. `stem` is the path of the node's journal and log, less their suffixes."""

    error: HgpuError
    entries: tuple[Entry, ...]
    log: bytes
    stem: str


Event = Progressed | Done | Failed


class NodeProfiler:
    """The actor: `start` it once, then ask for the `next` event until one is Done or Failed."""

    def __init__(self) -> None:
        self._events: SimpleQueue[Event] = SimpleQueue()

    def start(self, order: Order) -> str:
        """Begin to measure, and return the address of this node."""
        import ray

        # Ray sets it to the CPUs that it reserved; at home, threads are left to vLLM.
        os.environ.pop("OMP_NUM_THREADS", None)
        ids = [str(index) for index in ray.get_gpu_ids()]
        threading.Thread(target=self._measure, args=(order, ids), daemon=True).start()
        return str(ray.util.get_node_ip_address())

    def next(self) -> Event:
        """Wait for the next event."""
        return self._events.get()

    def _measure(self, order: Order, gpu_ids: Sequence[str]) -> None:
        """Put a last event, whatever happens; by then nothing is left here, for it ends the actor."""
        try:
            with scratch() as folder:
                last = self._measured(order, gpu_ids, folder)
        except Exception as error:
            last = Failed(_plain(error), (), b"", "")
        self._events.put(last)

    def _measured(self, order: Order, gpu_ids: Sequence[str], folder: Path) -> Done | Failed:
        news = _News()

        def progress(done: int, total: int, at: str) -> None:
            self._events.put(Progressed(done, total, at, news.entries()))

        try:
            job = bound(order, gpu_ids, folder)
            news.begin(journal_path(job, folder), job.key, order.done)
            result = order.measure(job, folder, progress)
            return Done(result, news.entries())
        except Exception as error:
            return Failed(_plain(error), news.entries(), news.log(), news.stem)


class _News:
    """The journal on this node: seeded with what is home, then told entry by entry."""

    def __init__(self) -> None:
        self._path = Path()
        self._key = ""
        self._told = 0  # bytes of the journal

    def begin(self, path: Path, key: str, done: Journal) -> None:
        """Write what is done already; the journal's key is this node's."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._key = path, key
        if done.header is not None:
            append(path, replace(done.header, key=key))
            rest: tuple[Entry, ...] = (*done.skips, *done.runs, *done.failures)
            for entry in rest:
                append(path, entry)
            self._told = path.stat().st_size

    def entries(self) -> tuple[Entry, ...]:
        """Return what was written since the last call."""
        if not self._path.is_file():
            return ()
        with self._path.open("rb") as stream:
            header = stream.readline() if self._told else b""
            stream.seek(self._told)
            fresh = stream.read()
        fresh = fresh[: fresh.rfind(b"\n") + 1]
        self._told += len(fresh)
        part = self._path.with_suffix(".part")
        part.write_bytes(header + fresh)
        journal = read(part, self._key)
        first = () if header or journal.header is None else (journal.header,)
        return (*first, *journal.skips, *journal.runs, *journal.failures)

    @property
    def stem(self) -> str:
        """The path that errors name, less its suffix."""
        return str(self._path.with_suffix("")) if self._key else ""

    def log(self) -> bytes:
        """Return the end of the engine's log."""
        log = self._path.with_suffix(".log")
        return log.read_bytes()[-LOG_BYTES:] if self._key and log.is_file() else b""


def profile_attached(job: VllmJob, folder: Path, progress: Progress) -> ProfileResult:
    """Measure with vLLM, once it is sure that the node's devices are of the job's type.

    Ray's names are coarser than the catalog's: an "H100" may be any of three.
    """
    cards = [] if job.gpu.is_cpu else attached_gpus()
    for card in cards:
        if card.index in job.gpus and card.gpu != job.gpu.name:
            raise InputError(
                f"Ray gave {job.point.name} a {card.gpu or card.nvml_name}",
                "its name for the accelerator covers both",
                f"""start the right nodes with --resources '{{"accelerator_type:{job.gpu.name}": 1}}'""",
            )
    return profile_vllm(job, folder, progress)


def bound(order: Order, gpu_ids: Sequence[str], folder: Path) -> VllmJob:
    """Return the job with a model, cores or devices of this node.

    Raises InputError where the model isn't here and can't be made here, or cores are too few.
    """
    job, source = order.job, _source(order, folder)
    if not job.gpu.is_cpu:
        return replace(job, source=source, gpus=tuple(_index(name) for name in gpu_ids))
    wanted, cores = job.gpu.cores * job.point.tp, sorted(os.sched_getaffinity(0))
    if len(cores) < wanted:
        raise InputError(
            f"{job.point.name} doesn't fit the node that Ray chose",
            f"it takes {wanted} cores, and processes there may use {len(cores)}",
            "start that node with as many --num-cpus as it has",
        )
    return replace(job, source=source, cores=tuple(cores[:wanted]))


def _index(name: str) -> int:
    """Return the index of a device that Ray calls by its index or by (a part of) its UUID."""
    if name.isdecimal():
        return int(name)
    for card in attached_gpus():
        if card.uuid.startswith(name):
            return card.index
    raise InputError(f"no whole GPU is called '{name}'", "Ray gave it to the profile", "turn MIG off there")


def _source(order: Order, folder: Path) -> str:
    """Return what vLLM loads here: the same folder where it is shared, or its small files."""
    source, files = order.job.source, order.files
    config = Path(source) / CONFIG
    if not files or (config.is_file() and config.read_bytes() == files[CONFIG]):
        return source
    if order.job.load_format != "dummy":
        raise InputError(
            f"the model folder '{source}' isn't on the node that Ray chose",
            "weights aren't sent there",
            "share the folder, name the model by its Hugging Face id, or profile with --load-format dummy",
        )
    here = folder / Path(source).name
    here.mkdir()
    for name, content in files.items():
        (here / name).write_bytes(content)
    return str(here)


@contextmanager
def scratch() -> Iterator[Path]:
    """Yield an empty folder that is deleted; delete those of processes that were killed, too."""
    for left in Path(tempfile.gettempdir()).glob(f"{SCRATCH}-*-*"):
        pid = left.name.split("-")[2]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(
        prefix=f"{SCRATCH}-{os.getpid()}-", ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)


def _plain(error: Exception) -> HgpuError:
    """Return an error that can travel, of the same exit code as far as that matters."""
    if isinstance(error, HgpuError):
        kind = InputError if isinstance(error, InputError) else EngineError
        return kind(error.what, error.why, error.fix)
    return EngineError(
        "the measurement failed", f"{type(error).__name__}: {error}", "see the node's Ray logs"
    )
