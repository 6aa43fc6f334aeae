"""A model of which each process keeps a part (ZeRO-3, arXiv 1910.02054), by torch's FSDP2.

A full fine-tune shards weights, gradients and Adam states. Under an adapter the frozen base is sharded, and
the adapter is whole in every process: it is small, and LaMDA replaces its parameters as it freezes, which
FSDP2 can't follow.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from hgpu.core.training import Method, Sharding
from hgpu.tuning.job import TuneJob
from hgpu.tuning.loading import mixed
from hgpu.tuning.methods import trained_now
from hgpu.tuning.ranks import Ranks, device


def shard(model: nn.Module, base: nn.Module, job: TuneJob, ranks: Ranks) -> None:
    """Leave in this process its part of every weight of `base`, which `model` is or adapts, on its device.

    What is gathered at a time is a decoder layer, the embedding or the head (both where they are tied). Mixed
    training gathers in bf16 and sums gradients in fp32. Nothing is done where the job doesn't shard.
    """
    if job.sharding is not Sharding.ZERO3:
        return
    whole = set() if job.method is Method.FULL else set(trained_now(model))
    for parameter in whole:
        parameter.data = parameter.data.to(device())
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = buffer.to(device())
    options: dict[str, Any] = {"mesh": init_device_mesh(device(), (ranks.count,)), "ignored_params": whole}
    if mixed(job):
        options["mp_policy"] = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    layers = set(base._no_split_modules or ())  # names of transformers' classes that belong on one device
    apart = [module for module in base.modules() if type(module).__name__ in layers]
    ends = base.get_input_embeddings(), base.get_output_embeddings()
    if ends[0].weight is not ends[1].weight:
        apart += ends
    for module in (*apart, base):
        fully_shard(module, **options)


def gathered(tensor: Tensor, ranks: Ranks) -> Tensor | None:
    """Return a tensor whole, on the CPU where it was sharded; None in others than the leader.

    All processes have to call it.
    """
    if isinstance(tensor, DTensor):
        full = tensor.full_tensor()
        return full.cpu() if ranks.leads else None
    return tensor if ranks.leads else None


def part_like(like: Mapping[str, Tensor], name: str, tensor: Tensor) -> Tensor:
    """Return this process's part of a tensor where that of the name is sharded, else all, on the CPU."""
    model = like.get(name)
    if not isinstance(model, DTensor) or model.shape != tensor.shape:
        return tensor.cpu()
    return distribute_tensor(tensor, model.device_mesh, model.placements, src_data_rank=None)
