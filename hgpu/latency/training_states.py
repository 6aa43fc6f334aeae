"""Bytes of weights, gradients and optimizer states, each convention by its name.

- `20P` (arXiv 2507.03305): bf16 weights 2, bf16 gradients 2, fp32 gradients 4, fp32 master weights,
  momentum and variance 12; with 2·N·B·C·H·L of checkpointed activations.
- `18P` (DeepSpeed's estimators): 16-bit weights 2, fp32 gradients 4, fp32 master weights, momentum and
  variance 12.
- `autocast` (torch's, as `hgpu tune` uses it): fp32 weights 4, gradients 4, momentum and variance 8; and 2 of
  a copy in 16 bits, of matrices that are multiplied, while passes run. So 18 too, but in the passes alone.
- `FSDP2` (torch's, as `hgpu tune` shards by it): fp32 weights 4, gradients 4, momentum and variance 8, all in
  parts; what is gathered for a pass is in 16 bits.
- `plain`: weights, gradients, momentum and variance, all in the model's own format (torch's AdamW).
"""

from dataclasses import dataclass
from enum import StrEnum

BUCKET_BYTES = 64 * 2**20  # of gradients that `hgpu tune` sends in one message
AUTOCAST_COPY_BYTES = 2.0  # of each parameter that is multiplied, while passes run
BUFFER_FACTOR = 1.5  # DeepSpeed's `additional_buffer_factor`, for pinned and staging buffers


class Convention(StrEnum):
    """Whose count of bytes a parameter is used."""

    PAPER = "20P"
    DEEPSPEED = "18P"
    AUTOCAST = "autocast"
    FSDP = "FSDP2"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class StateBytes:
    """Bytes of each trained parameter."""

    weights: float
    gradients: float
    optimizer: float

    @property
    def total(self) -> float:
        """All three."""
        return self.weights + self.gradients + self.optimizer


def state_bytes(convention: Convention, element_bytes: float = 2.0) -> StateBytes:
    """Return the bytes of a trained parameter; `element_bytes` are those of the plain format."""
    if convention is Convention.PAPER:
        return StateBytes(2.0, 2.0 + 4.0, 12.0)
    if convention is Convention.DEEPSPEED:
        return StateBytes(2.0, 4.0, 12.0)
    if convention in (Convention.AUTOCAST, Convention.FSDP):
        return StateBytes(4.0, 4.0, 8.0)
    return StateBytes(element_bytes, element_bytes, 2 * element_bytes)


def checkpointed_bytes(
    gpus: int, batch: int, context: int, hidden: int, layers: int, element_bytes: float = 2.0
) -> float:
    """Return what the inputs of all layers take, over all GPUs: 2·N·B·C·H·L in 16 bits."""
    return element_bytes * gpus * batch * context * hidden * layers


@dataclass(frozen=True, slots=True)
class Zero3Needs:
    """Bytes on the host of one node, and on each of its GPUs, without activations."""

    host_bytes: float
    gpu_bytes: float


def zero3_needs(
    params: int,
    largest_layer_params: int,
    gpus_per_node: int,
    nodes: int = 1,
    *,
    optimizer_on_host: bool = True,
    weights_on_host: bool = True,
) -> Zero3Needs:
    """Return what DeepSpeed's `estimate_zero3_model_states_mem_needs` says, with `zero.Init`.

    Each GPU gathers one layer at a time (weights and gradients in 16 bits, 4 bytes a parameter); its shard
    of what isn't offloaded comes on top. DeepSpeed prints GB of 2³⁰ bytes.
    """
    gathered = 4.0 * largest_layer_params
    gpus = gpus_per_node * nodes
    if not optimizer_on_host:
        staging = gathered * gpus_per_node * BUFFER_FACTOR
        return Zero3Needs(staging, gathered + 18.0 * params / gpus)
    each = 18.0 if weights_on_host else 16.0
    shard = 0.0 if weights_on_host else 2.0 * params / gpus
    return Zero3Needs(each * params / nodes * BUFFER_FACTOR, gathered + shard)
