"""Hints for an expert cache as a file that an engine reads when it starts."""

from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from hgpu.core.errors import InputError
from hgpu.latency.expert_hints import UNKNOWN, ExpertHints
from hgpu.latency.routing import Ids


def save_hints(hints: ExpertHints, path: Path) -> Path:
    """Write hints as an .npz file of `ranking`, `uses` and, where there is one, `table`; return its path."""
    arrays = {"ranking": hints.ranking, "uses": hints.uses, "table": hints.table}
    given: Any = {name: array for name, array in arrays.items() if array is not None}
    with path.open("wb") as file:
        np.savez_compressed(file, **given)
    return path


def load_hints(path: Path) -> ExpertHints:
    """Read hints back. Raises InputError where the file isn't there, or isn't one of hints."""
    try:
        with np.load(path, allow_pickle=False) as file:
            ranking, uses = file["ranking"], file["uses"]
            table = file["table"] if "table" in file.files else None
    except (OSError, KeyError, ValueError, BadZipFile) as error:
        raise InputError(f"{path} can't be read as hints of an expert cache", str(error)) from error
    whole = ranking.ndim == 2 and uses.shape == ranking.shape
    permuted = whole and (np.sort(ranking, axis=1) == np.arange(ranking.shape[1])).all()
    if not (permuted and (table is None or _tabled(table, ranking))):
        raise InputError(f"{path} doesn't hold hints of an expert cache", "its arrays don't fit each other")
    return ExpertHints(ranking.astype(np.int32), uses.astype(np.int64), table)


def _tabled(table: Ids, ranking: Ids) -> bool:
    layers, experts = ranking.shape
    fits = table.ndim == 3 and table.shape[1] == layers and table.size > 0
    return bool(fits and table.min() >= UNKNOWN and table.max() < experts)
