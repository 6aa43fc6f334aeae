"""Hints as a file, there and back, and what isn't one."""

from pathlib import Path

import numpy as np
import pytest

from hgpu.core.errors import InputError
from hgpu.latency.expert_hints import ExpertHints
from hgpu.latency.hints_file import load_hints, save_hints

RANKING = np.array([[2, 0, 1], [1, 2, 0]], np.int32)
USES = np.array([[3, 1, 9], [1, 5, 4]])
TABLE = np.full((5, 2, 2), -1, np.int32)


@pytest.mark.parametrize("table", [None, TABLE])
def test_hints_are_read_as_they_were_written(tmp_path: Path, table: np.ndarray | None) -> None:
    read = load_hints(save_hints(ExpertHints(RANKING, USES, table), tmp_path / "hints"))
    assert (read.ranking == RANKING).all() and (read.uses == USES).all()
    assert (read.table is None) if table is None else (read.table == table).all()


def test_a_file_that_isnt_one_of_hints_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hints.npz"
    with pytest.raises(InputError, match="can't be read"):
        load_hints(path)
    path.write_bytes(b"PK")
    with pytest.raises(InputError, match="can't be read"):
        load_hints(path)
    np.savez(path, ranking=RANKING)
    with pytest.raises(InputError, match="can't be read"):
        load_hints(path)
    for ranking, uses, table in (
        (RANKING[0], USES[0], TABLE),
        (np.zeros_like(RANKING), USES, TABLE),
        (RANKING, USES[:1], TABLE),
        (RANKING, USES, TABLE[:, :1]),
        (RANKING, USES, TABLE + 4),
    ):
        np.savez(path, ranking=ranking, uses=uses, table=table)
        with pytest.raises(InputError, match="don't fit each other"):
            load_hints(path)
