"""The journal of a load test: a file a finished point, there whole or not at all.

`<results>/journal/load-<key>/` holds `header.json` with what all points share, and `0000.parquet`, … with the
requests of a point and, in the file's metadata, its figures. Each is written beside, synced and renamed. The
same command has the same key: it finds what is finished and goes on with the rest.
"""

import io
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hgpu.artifacts.durable import sync_folder, write_synced
from hgpu.artifacts.payloads.load import LoadPoint
from hgpu.bench.outcomes import Outcomes
from hgpu.core.errors import HgpuError, InputError

_POINT = b"hgpu.point"


@dataclass(frozen=True, slots=True)
class PointJournal:
    """Finished points of one load test, by number. `header` is what its first run chose."""

    folder: Path
    header: dict[str, Any]

    def get(self, number: int) -> tuple[LoadPoint, Any] | None:
        """Return a finished point and the table of its requests; None where it isn't finished."""
        import pyarrow.parquet as pq

        path = self._path(number)
        if not path.exists():
            return None
        try:
            table = pq.read_table(path)
            return LoadPoint.model_validate_json(table.schema.metadata[_POINT]), table
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"the journal {path} is damaged", str(error), "delete it, and measure this point again"
            ) from error

    def put(self, number: int, point: LoadPoint, outcomes: Outcomes) -> tuple[LoadPoint, Any]:
        """Keep a point that is finished. Raises HgpuError where the disk refuses."""
        table = requests_table(number, outcomes)
        told = {_POINT: point.model_dump_json().encode()}
        _write(self._path(number), parquet_bytes(table.replace_schema_metadata(told)))
        return point, table

    def forget(self) -> None:
        """Delete it, once all is saved as an artifact."""
        shutil.rmtree(self.folder)

    @property
    def finished(self) -> int:
        """How many points are there."""
        return len(list(self.folder.glob("*.parquet")))

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:04}.parquet"


@contextmanager
def point_journal(
    results: Path, key: str, make_header: Callable[[], dict[str, Any]]
) -> Iterator[PointJournal]:
    """Open the journal of a key. Its header is made when it is new.

    Raises HgpuError where another process has it.
    """
    folder = results / "journal" / f"load-{key[:12]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_suffix(".lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise HgpuError(
            "this load test is running already",
            f"another process holds {folder.with_suffix('.lock')}",
            "wait for it to end, or stop it",
        ) from error
    try:
        yield PointJournal(folder, _header(folder, make_header))
    finally:
        lock.release()


def requests_table(number: int, outcomes: Outcomes) -> Any:
    """Return the requests of a point as a table; see `hgpu.artifacts.payloads.load`."""
    import pyarrow as pa

    names = ("intended_s", "sent_s", "first_s", "end_s", "input_tokens", "output_tokens", "longest_gap_s")
    return pa.table(
        {
            "point": pa.array([number] * outcomes.requests, pa.int32()),
            **{name: pa.array(getattr(outcomes, name)) for name in names},
            "error": pa.array(outcomes.error, pa.string()),
        }
    )


def parquet_bytes(table: Any) -> bytes:
    """Return a table as a Parquet file."""
    import pyarrow.parquet as pq

    stream = io.BytesIO()
    pq.write_table(table, stream)
    return stream.getvalue()


def _header(folder: Path, make_header: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    path = folder / "header.json"
    if not path.exists():
        header = make_header()
        folder.mkdir(exist_ok=True)
        _write(path, json.dumps(header).encode())
        return header
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def _write(path: Path, content: bytes) -> None:
    """Write a file so that after any crash it is there whole or not at all."""
    staging = path.with_name(f".{path.name}.tmp")
    try:
        write_synced(staging, content)
        staging.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise HgpuError(
            f"can't write the journal under {path.parent}",
            error.strerror or str(error),
            "free space and run the same command again: finished points are kept",
        ) from error
