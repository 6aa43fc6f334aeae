"""What an offloaded fine-tuning step keeps on the host, and what the step moves of it.

With parameters and optimizer on the host (ZeRO-3 with offload) and checkpointed activations offloaded, the
host holds 20 bytes for each of P parameters, and the checkpoints of all N devices (arXiv 2507.03305):

    level 1, latency-critical   momentum, variance, fp32 gradients, fp32 master weights    4P bytes each
    level 2                     bf16 weights                                               2P
    level 3                     checkpointed activations                                   2·N·B·C·H·L
    level 4                     bf16 gradients                                             2P

This is the paper's convention; DeepSpeed's own estimators charge 18P. Say which one a figure follows.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from hgpu.core.errors import InputError

CONVENTION = "20P + 2·N·B·C·H·L"
FP32_BYTES = 4
BF16_BYTES = 2


class TensorName(StrEnum):
    """The tensors of offloaded training, in the order in which memory is given out."""

    MOMENTUM = "momentum"
    VARIANCE = "variance"
    FP32_GRADIENTS = "fp32_gradients"
    FP32_MASTER = "fp32_master"
    BF16_WEIGHTS = "bf16_weights"
    ACTIVATIONS = "activations"
    BF16_GRADIENTS = "bf16_gradients"


@dataclass(frozen=True, slots=True)
class TrainingTensor:
    """One tensor on the host: its bytes, how critical it is (level 1 first), and its traffic in one step.

    `optimizer_bytes` is what the optimizer step reads and writes of it; `to_device_forward_bytes`,
    `to_device_backward_bytes`, `to_host_forward_bytes` and `to_host_backward_bytes` are what crosses
    the links of all devices together.
    """

    name: TensorName
    level: int
    size_bytes: int
    optimizer_bytes: int = 0
    to_device_forward_bytes: int = 0
    to_device_backward_bytes: int = 0
    to_host_forward_bytes: int = 0
    to_host_backward_bytes: int = 0


@dataclass(frozen=True, slots=True)
class TrainingShape:
    """A model and a step of it: parameters, layers, hidden size, and `batch` sequences a device.

    `attention_flops_per_pair` is the forward work of one (query, key) pair over all layers, 4·L·heads·head
    size; 0 leaves attention scores out, as 2P·tokens does. Raises InputError where another number
    isn't positive.
    """

    params: int
    layers: int
    hidden_size: int
    batch: int
    context_tokens: int
    devices: int = 1
    attention_flops_per_pair: int = 0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < (name != "attention_flops_per_pair"):
                raise InputError(
                    f"a training step can't have {name} {getattr(self, name)}", fix="give at least 1"
                )

    @property
    def tokens_per_device(self) -> int:
        """Tokens that one device works on in a step."""
        return self.batch * self.context_tokens

    @property
    def forward_flops_per_device(self) -> float:
        """Work of a forward pass on one device: 2P a token, and causal attention over C·(C + 1)/2 pairs."""
        pairs = self.context_tokens * (self.context_tokens + 1) / 2
        return self.batch * (2 * self.params * self.context_tokens + self.attention_flops_per_pair * pairs)

    @property
    def checkpoint_bytes(self) -> int:
        """Bytes of the checkpointed activations of all devices: 2·N·B·C·H·L, one bf16 input a layer."""
        return BF16_BYTES * self.devices * self.tokens_per_device * self.hidden_size * self.layers


def offloaded_tensors(shape: TrainingShape) -> tuple[TrainingTensor, ...]:
    """Return the tensors on the host in level order, with their traffic.

    The optimizer reads gradient, master weight and both moments and writes the last three, 28 bytes a
    parameter, and writes the bf16 copy, 2 more. Every device reads all bf16 weights forward and again
    backward, as recomputation needs them; gradients come back once, as each device hands in its own part.
    """
    params, saved = shape.params, shape.checkpoint_bytes
    fp32, bf16 = FP32_BYTES * params, BF16_BYTES * params
    every = shape.devices * bf16
    return (
        TrainingTensor(TensorName.MOMENTUM, 1, fp32, optimizer_bytes=2 * fp32),
        TrainingTensor(TensorName.VARIANCE, 1, fp32, optimizer_bytes=2 * fp32),
        TrainingTensor(TensorName.FP32_GRADIENTS, 1, fp32, optimizer_bytes=fp32),
        TrainingTensor(TensorName.FP32_MASTER, 1, fp32, optimizer_bytes=2 * fp32),
        TrainingTensor(
            TensorName.BF16_WEIGHTS,
            2,
            bf16,
            optimizer_bytes=bf16,
            to_device_forward_bytes=every,
            to_device_backward_bytes=every,
        ),
        TrainingTensor(
            TensorName.ACTIVATIONS, 3, saved, to_device_backward_bytes=saved, to_host_forward_bytes=saved
        ),
        TrainingTensor(TensorName.BF16_GRADIENTS, 4, bf16, to_host_backward_bytes=bf16),
    )


def host_bytes(tensors: Iterable[TrainingTensor]) -> int:
    """Return the bytes of all tensors together."""
    return sum(tensor.size_bytes for tensor in tensors)
