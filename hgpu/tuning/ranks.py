"""The processes of one fine-tune, a device each, and what they tell each other.

They are started by torch's elastic launcher (`hgpu/tuning/launch.py`, or torchrun by hand), which sets RANK,
WORLD_SIZE, LOCAL_RANK and the address of a store. Collectives go over NCCL between GPUs, else over Gloo.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from typing import Any

from hgpu.core.errors import InputError
from hgpu.latency.training_states import BUCKET_BYTES

PATIENCE = timedelta(minutes=30)  # for the others, while one of them decomposes weights or writes them


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process's number, from 0, and how many there are. Alone, every exchange returns what it is given.

    All of them have to call every exchange, in the same order.
    """

    number: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Tell whether this process writes, and shows how far they are."""
        return self.number == 0

    def total(self, value: float) -> float:
        """Return the sum of everyone's value."""
        return sum(self._all(value))

    def most(self, value: int) -> int:
        """Return the largest of everyone's values."""
        return int(max(self._all(value)))

    def _all(self, value: float) -> list[float]:
        if self.count == 1:
            return [value]
        import torch

        return [row.item() for row in self.rows(torch.tensor([value], dtype=torch.float64))]

    def told(self, value: Any) -> Any:
        """Return what the leader gave: something small, as it is pickled."""
        if self.count == 1:
            return value
        from torch import distributed

        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def rows(self, tensor: Any) -> list[Any]:
        """Return everyone's tensor (of one shape), by number, on the CPU."""
        if self.count == 1:
            return [tensor]
        import torch
        from torch import distributed

        mine = tensor.to(device())
        rows = [torch.empty_like(mine) for _ in range(self.count)]
        distributed.all_gather(rows, mine)
        return [row.cpu() for row in rows]

    def sent(self, tensors: Mapping[str, Any], keep: Callable[[str, Any], Any]) -> dict[str, Any]:
        """Return what everyone keeps of the leader's tensors, which come one by one to each device."""
        if self.count == 1:
            return dict(tensors)
        import torch
        from torch import distributed

        found = {}
        for name, shape, dtype in self.told([(name, it.shape, it.dtype) for name, it in tensors.items()]):
            here = tensors[name] if self.leads else torch.empty(shape, dtype=dtype)
            there = here.to(device())
            distributed.broadcast(there, src=0)
            found[name] = keep(name, there)
        return found

    def united(self, mine: Mapping[str, Any]) -> dict[str, Any]:
        """Return what all have, of what each has a part; it is pickled."""
        if self.count == 1:
            return dict(mine)
        from torch import distributed

        rows: list[Any] = [None] * self.count
        distributed.all_gather_object(rows, dict(mine))
        return {name: value for row in rows for name, value in row.items()}

    def spread(self, tensors: Iterable[Any], source: int = 0) -> None:
        """Put one process's values into everyone's tensors, but for those of which each has a part."""
        if self.count == 1:
            return
        from torch import distributed
        from torch.distributed.tensor import DTensor

        for tensor in tensors:
            if not isinstance(tensor, DTensor):
                there = tensor.to(device())
                distributed.broadcast(there, src=source)
                tensor.copy_(there)

    def mean_gradients(self, parameters: Iterable[Any]) -> None:
        """Replace every gradient by its mean over the processes, in place, but for what FSDP has averaged.

        A plain all-reduce after a step's last pass, of many gradients in one message. Not torch's DDP: it
        hooks on the parameters it was given and sets up its buckets once, and LaMDA replaces its parameters
        by smaller ones as it freezes. What DDP hides behind the backward pass here comes after it.
        """
        if self.count == 1:
            return
        import torch
        from torch import distributed
        from torch.distributed.tensor import DTensor

        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for bucket in buckets([it for it in gradients if not isinstance(it, DTensor)]):
            flat = torch.cat([gradient.flatten() for gradient in bucket]) if bucket[1:] else bucket[0]
            distributed.all_reduce(flat)
            flat /= self.count
            if bucket[1:]:
                parts = flat.split([gradient.numel() for gradient in bucket])
                for part, gradient in zip(parts, bucket, strict=True):
                    gradient.copy_(part.view_as(gradient))


ALONE = Ranks()


def buckets(tensors: Iterable[Any], most_bytes: int = BUCKET_BYTES) -> Iterator[list[Any]]:
    """Yield tensors in lists of one number format, of at most so many bytes or of a single tensor."""
    for _, alike in groupby(sorted(tensors, key=lambda it: str(it.dtype)), key=lambda it: it.dtype):
        bucket: list[Any] = []
        held = 0
        for tensor in alike:
            if bucket and held + tensor.nbytes > most_bytes:
                yield bucket
                bucket, held = [], 0
            bucket.append(tensor)
            held += tensor.nbytes
        yield bucket


def device() -> str:
    """Return where this process trains: torch's current GPU where it sees one, else the CPU."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def launched() -> bool:
    """Tell whether torch's launcher started this process, as one of several or as the only one."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"))


def require_devices(count: int) -> None:
    """Raise InputError where this machine has GPUs, but fewer than `count`."""
    import torch

    if torch.cuda.is_available() and torch.cuda.device_count() < count:
        there = torch.cuda.device_count()
        raise InputError(
            f"{count} processes need {count} GPUs here",
            f"torch sees {there}: each process trains on a GPU of its own",
            f"--set data_parallel={there}, or take more machines (docs/tune.md)",
        )


@contextmanager
def joined(wanted: int) -> Iterator[Ranks]:
    """Yield the processes that a launcher started, this one among them; alone where none did.

    Raises InputError where there aren't as many as `wanted`, or too few GPUs.
    """
    count = int(os.environ["WORLD_SIZE"]) if launched() else 1
    if count != wanted:
        raise InputError(
            f"the spec trains on {wanted} devices, and there are {count} processes",
            "each process trains on one",
            f"--set data_parallel={count}, or let hgpu tune start them: call it without torchrun",
        )
    if count == 1:
        yield ALONE
        return
    import torch
    from torch import distributed

    local = int(os.environ["LOCAL_RANK"])
    require_devices(local + 1)
    options: dict[str, Any] = {"backend": "gloo"}
    if device() == "cuda":
        torch.cuda.set_device(local)
        options = {"backend": "nccl", "device_id": torch.device("cuda", local)}
    distributed.init_process_group(timeout=PATIENCE, **options)
    yield Ranks(distributed.get_rank(), count)
    distributed.destroy_process_group()  # not after an error: it would wait for those that wait for this one
