"""A disk that fills up at any moment of a deploy leaves no process behind."""

import errno
import os

import pytest

from hgpu.deploy import running
from hgpu.runtime.tags import tagged


@pytest.mark.parametrize("room", [1, 2, 3, 5, 8])
def test_a_state_that_cannot_be_written_leaves_no_process(bench, monkeypatch, room):
    real, written = running.write_state, []

    def full(folder, state):
        if len(written) >= room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(state.phase)
        return real(folder, state)

    monkeypatch.setattr(running, "write_state", full)
    with pytest.raises(OSError, match="No space left"):
        bench.apply()
    assert tagged(bench.name, bench.folder) == []
    monkeypatch.undo()
    assert bench.apply().changed
    assert bench.destroy().killed > 0
