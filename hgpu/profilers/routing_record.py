"""The routing of an engine's tokens as it was measured, and its file.

`trace.npz` holds these columns, compressed, each under its own name; `next_gate` only where it was recorded.
"""

from dataclasses import dataclass
from io import BytesIO
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from hgpu.core.errors import ArtifactError

ABSENT = -1


@dataclass(frozen=True, slots=True, eq=False)
class RoutingRecord:
    """N tokens through L layers with experts, k of them for each token, in the order of the engine's batches.

    - `ids` (N, L, k): expert ids;
    - `step`, `request` (N): numbers of the engine step and of the prompt, from 0;
    - `position`, `token` (N): place in the sequence, and token id;
    - `prefill` (N): True for tokens of the prompt;
    - `next_gate` (N, L, k) or None: the experts that layer l's router chooses from the hidden states that
      layer l − 1's router saw; −1 in layer 0.
    """

    ids: NDArray[np.int32]
    step: NDArray[np.int64]
    request: NDArray[np.int32]
    position: NDArray[np.int32]
    token: NDArray[np.int64]
    prefill: NDArray[np.bool_]
    next_gate: NDArray[np.int32] | None = None

    def to_npz(self) -> bytes:
        """Return the file's bytes."""
        columns = {name: getattr(self, name) for name in _STORED if getattr(self, name) is not None}
        stream = BytesIO()
        stored = {name: column.astype(_STORED[name]) for name, column in columns.items()}
        np.savez_compressed(stream, allow_pickle=False, **stored)
        return stream.getvalue()


_STORED: dict[str, type[Any]] = {
    "ids": np.int16,
    "step": np.int32,
    "request": np.int32,
    "position": np.int32,
    "token": np.int32,
    "prefill": np.bool_,
    "next_gate": np.int16,
}
_HELD = {"ids": np.int32, "step": np.int64, "token": np.int64, "next_gate": np.int32}


def from_npz(content: bytes) -> RoutingRecord:
    """Read a file's bytes. Raises ArtifactError where they aren't a routing record."""
    try:
        with np.load(BytesIO(content), allow_pickle=False) as columns:
            held = {name: columns[name].astype(_HELD.get(name, _STORED[name])) for name in columns}
        return RoutingRecord(**held)
    except (OSError, EOFError, ValueError, TypeError, KeyError, BadZipFile) as error:
        raise ArtifactError("this isn't a routing record", str(error), "record it again") from error
