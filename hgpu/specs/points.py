"""Operating points to be asked about: one from options, or a CSV file of them."""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from hgpu.catalog.gpus import resolve_gpu
from hgpu.catalog.models import load_model
from hgpu.core.errors import InputError
from hgpu.core.gpu import DType, GpuType
from hgpu.core.model import ModelSpec
from hgpu.core.operating_point import KV_DTYPES, EngineOptions, OperatingPoint
from hgpu.specs.cells import dtype_or_none, located, spread_or_none, whole_number

COLUMNS = ("model", "gpu", "tp", "dtype", "input_tokens", "output_tokens", "concurrency")
OPTIONAL_COLUMNS = ("kv_dtype", "input_spread", "output_spread", "max_num_batched_tokens")
_HEADER_FIX = f"begin the file with the line {','.join(COLUMNS)}"
_NUMBERS = ("tp", "input_tokens", "output_tokens", "concurrency")
SMALLEST_BUDGET = 16  # tokens a step, as a block of vLLM's KV cache; far less gives too few steps to fit


@dataclass(frozen=True, slots=True)
class AskedPoint:
    """A row: the model and GPU with the names that the user gave, and the load.

    `kv_dtype` is the format of the KV cache; None keeps it as the model says. `max_num_batched_tokens` is
    the engine's token budget a step; None takes vLLM's default. `input_spread` and `output_spread` say how
    far below the nominal the lengths reach, as fractions of it; None takes them from the command.
    """

    model_name: str
    gpu_name: str
    model: ModelSpec
    gpu: GpuType
    tp: int
    dtype: DType
    input_tokens: int
    output_tokens: int
    concurrency: int
    kv_dtype: DType | None = None
    input_spread: float | None = None
    output_spread: float | None = None
    max_num_batched_tokens: int | None = None

    def operating_point(self, engine: EngineOptions) -> OperatingPoint:
        """Return the point under engine options, but with the KV cache and token budget that are asked for.

        A budget below the number of sequences limits these too, as vLLM does where they aren't set.
        """
        tokens = self.max_num_batched_tokens or engine.max_num_batched_tokens
        seqs = min(engine.max_num_seqs, tokens)
        options = replace(
            engine, max_num_batched_tokens=tokens, max_num_seqs=seqs, kv_cache_dtype=self.kv_dtype
        )
        return OperatingPoint(self.gpu.name, self.tp, dtype=self.dtype, engine=options)


@dataclass(frozen=True, slots=True)
class PointsFile:
    """The rows of a file, and the columns in it that mean nothing here."""

    points: tuple[AskedPoint, ...]
    unused_columns: tuple[str, ...]


def one_or_many(
    path: Path | None, options: Mapping[str, str]
) -> tuple[tuple[AskedPoint, ...], tuple[str, ...]]:
    """Return the points of a file, or the one that options (by column) give.

    Raises InputError where both are given, or neither.
    """
    by_options = bool(options["model"] and options["gpu"])
    if by_options == (path is not None) or (path and (options["model"] or options["gpu"])):
        raise InputError(
            "what to estimate isn't clear",
            "either --model and --gpu, or --points is needed",
            "try hgpu estimate --model Qwen/Qwen3-8B --gpu L4",
        )
    if path is None:
        return (asked_point(options),), ()
    file = read_points(path)
    return file.points, file.unused_columns


def read_points(path: Path) -> PointsFile:
    """Return the points in a CSV file; raises InputError that names line and column."""
    rows = list(_numbered_rows(path))
    if not rows:
        raise InputError(f"points file {path} is empty", "it has no header", _HEADER_FIX)
    header = [name.strip() for name in rows[0][1]]
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise InputError(f"{path}, line 1: no column {', '.join(missing)}", f"it has {header}", _HEADER_FIX)
    if len(rows) == 1:
        raise InputError(f"points file {path} is empty", "it has no row after the header", "add one")
    points = []
    for line, cells in rows[1:]:
        if len(cells) != len(header):
            why = f"it has {len(cells)} cells, the header has {len(header)}"
            raise InputError(f"{path}, line {line}: bad row", why, "give each column one cell")
        points.append(asked_point(dict(zip(header, cells, strict=True)), f"{path}, line {line}, column "))
    known = (*COLUMNS, *OPTIONAL_COLUMNS)
    return PointsFile(tuple(points), tuple(name for name in header if name not in known))


def asked_point(cells: Mapping[str, str], where: str = "option ") -> AskedPoint:
    """Return a point from texts by column; `where` stands in front of the column in errors.

    An empty `dtype` takes the weights as they are stored; AskedPoint says what other empty cells mean.
    """
    cells = {name: (cells.get(name) or "").strip() for name in (*COLUMNS, *OPTIONAL_COLUMNS)}
    dtype = dtype_or_none(cells["dtype"], where + "dtype", tuple(DType))
    kv_dtype = dtype_or_none(cells["kv_dtype"], where + "kv_dtype", KV_DTYPES)
    try:
        model = _weights(cells["model"], dtype)
    except InputError as error:
        raise located(where + "model", error) from error
    try:
        gpu = resolve_gpu(cells["gpu"])
    except InputError as error:
        raise located(where + "gpu", error) from error
    tp, input_tokens, output_tokens, concurrency = (
        whole_number(cells[name], where + name) for name in _NUMBERS
    )
    return AskedPoint(
        cells["model"],
        cells["gpu"],
        model,
        gpu,
        tp,
        model.weight_dtype,
        input_tokens,
        output_tokens,
        concurrency,
        kv_dtype,
        spread_or_none(cells["input_spread"], where + "input_spread"),
        spread_or_none(cells["output_spread"], where + "output_spread"),
        _budget(cells["max_num_batched_tokens"], where + "max_num_batched_tokens"),
    )


def _budget(text: str, where: str) -> int | None:
    return whole_number(text, where, SMALLEST_BUDGET) if text else None


def _numbered_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Return rows that aren't blank, with their line numbers."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        why = error.strerror or str(error)
        raise InputError(f"can't read points file {path}", why, "check the path") from error
    except UnicodeDecodeError as error:
        why = f"byte {error.start} isn't UTF-8"
        raise InputError(f"points file {path} isn't text", why, "save it as CSV in UTF-8") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        return [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise InputError(
            f"{path}, line {reader.line_num}: bad CSV", str(error), "check its quotes"
        ) from error


@cache
def _weights(name: str, dtype: DType | None) -> ModelSpec:
    """Return the model as it is stored where that is the format asked for, else in that format."""
    if not name:
        raise InputError("no model", "the name is empty", "give a Hugging Face id or a folder")
    stored = load_model(name)
    return stored if dtype in (None, stored.weight_dtype) else load_model(name, dtype)
