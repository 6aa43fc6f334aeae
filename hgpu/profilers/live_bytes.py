"""How many bytes of tensors live at each moment of a training pass.

Seen are the storages that operators return, from the operator that makes one to its release. Weights aren't,
nor their copies in another format (autocast's), nor scratch memory inside an operator. Needs torch.
"""

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


class Timeline:
    """Births and deaths of storages in order, and named moments in it."""

    def __init__(self, weights: Iterable[Any] = ()) -> None:
        self._weights = {_identity(weight) for weight in weights}
        self._events: list[tuple[int, int]] = []  # key and bytes, negative at death
        self._marks: dict[str, int] = {}
        self._alive: dict[int, int] = {}

    def mark(self, name: str) -> None:
        """Name this moment; the first of a name counts."""
        self._marks.setdefault(name, len(self._events))

    def peak_bytes(self, start: str, end: str, without: Iterable[Any] = ()) -> int:
        """Return the most bytes that live between two marks; the tensors in `without` are left out."""
        left_out = {self._alive.get(_identity(tensor)) for tensor in without}
        sizes = [0 if key in left_out else size for key, size in self._events]
        live = np.concatenate([[0], np.cumsum(sizes)])
        return int(live[self._marks[start] : self._marks[end] + 1].max())

    @contextmanager
    def tracking(self) -> Iterator[None]:
        """Note what lives while this is entered, between the marks `start` and `end`."""
        self.mark("start")
        with _dispatch_mode(self):
            yield
        self.mark("end")

    def is_weight(self, tensor: Any) -> bool:
        """Tell whether a tensor is a weight, or a copy of one."""
        return _identity(tensor) in self._weights

    def converted(self, tensor: Any) -> None:
        """Note a copy of a weight, which is a weight too until it is gone."""
        storage = tensor.untyped_storage()
        self._weights.add(storage._cdata)
        weakref.finalize(storage, self._weights.discard, storage._cdata)

    def born(self, storage: Any) -> None:
        """Note a storage, and in time its death."""
        identity, key, size = storage._cdata, len(self._events), storage.nbytes()
        self._alive[identity] = key
        self._events.append((key, size))
        weakref.finalize(storage, self._died, identity, key, size)

    def knows(self, tensor: Any) -> bool:
        """Tell whether a tensor's storage is noted and lives."""
        return _identity(tensor) in self._alive

    def _died(self, identity: int, key: int, size: int) -> None:
        self._alive.pop(identity, None)
        self._events.append((key, -size))


def _dispatch_mode(timeline: Timeline) -> Any:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    def tensors(tree: Any) -> list[Any]:
        return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]

    class Mode(TorchDispatchMode):  # type: ignore[misc]  # torch is not followed by mypy
        def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            given = {_identity(tensor) for tensor in tensors((args, kwargs))}
            out = op(*args, **(kwargs or {}))
            if op is torch.ops.aten._to_copy.default and timeline.is_weight(args[0]):
                timeline.converted(out)
                return out
            for tensor in tensors(out):
                if _identity(tensor) not in given and not timeline.knows(tensor):
                    timeline.born(tensor.untyped_storage())
            return out

    return Mode()


def _identity(tensor: Any) -> int:
    return int(tensor.untyped_storage()._cdata)
