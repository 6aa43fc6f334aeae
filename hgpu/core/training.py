"""What training adds to a model: its linear modules, adapters on them, and activations kept for backward."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from hgpu.core.gpu import DType
from hgpu.core.provenance import Provenance


class Method(StrEnum):
    """What of the model is trained."""

    FULL = "full"
    LORA = "lora"
    LAMDA = "lamda"


class Offload(StrEnum):
    """Where weights, gradients and optimizer states live.

    `zero3`: in the host's DRAM, gathered layer by layer (DeepSpeed ZeRO-3 with CPU offload). `tiered`: over
    DRAM and CXL memory by the latency of each tensor's use.
    """

    NONE = "none"
    ZERO3 = "zero3"
    TIERED = "tiered"


class Sharding(StrEnum):
    """Whether data-parallel copies keep everything each (`none`), or a part of it each (`zero3`)."""

    NONE = "none"
    ZERO3 = "zero3"


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to run a fine-tune on some GPUs.

    `micro_batch` sequences go through each of the `dp` copies at once, each copy on `tp` GPUs. `rank` is 0
    where there are no adapters.
    """

    method: Method
    rank: int
    offload: Offload
    checkpointing: bool
    sharding: Sharding
    micro_batch: int
    tp: int
    dp: int

    @property
    def gpus(self) -> int:
        """GPUs of all copies."""
        return self.tp * self.dp

    @property
    def name(self) -> str:
        """What tells it from others, in words."""
        parts = [str(self.method) + (f" r{self.rank}" if self.rank else "")]
        if self.offload is not Offload.NONE:
            parts.append(f"offload {self.offload}")
        elif self.sharding is not Sharding.NONE:
            parts.append(f"sharded {self.sharding}")
        if self.checkpointing:
            parts.append("checkpointed")
        return ", ".join(parts)


def not_tuned(variant: Variant, dtype: DType) -> str:
    """Return why `hgpu tune` doesn't run a variant; empty where it does."""
    if variant.tp > 1:
        return f"hgpu tune doesn't split layers over GPUs, and the plan does over {variant.tp}"
    if variant.offload is not Offload.NONE:
        return f"hgpu tune doesn't offload, and the plan does: {variant.offload}"
    if dtype is DType.FP16:
        return "hgpu tune doesn't train in fp16: it has no loss scaling"
    return ""


@dataclass(frozen=True, slots=True)
class Linear:
    """`count` linear modules of one name and shape, such as `q_proj` of each layer."""

    name: str
    in_features: int
    out_features: int
    count: int

    @property
    def params(self) -> int:
        """Weights of all of them."""
        return self.in_features * self.out_features * self.count


@dataclass(frozen=True, slots=True)
class TrainableCount:
    """Trained parameters: the most at once, the mean over the steps, and those of the last step."""

    peak: int
    mean: float
    final: int


@dataclass(frozen=True, slots=True)
class Terms:
    """Bytes as a sum over what they grow with.

    L·B·C·layer_token + L·B·C²·layer_pair + L·layer + B·C·token + B·C·V·logit + C·position + constant for L
    layers, B sequences of C tokens and a vocabulary of V.
    """

    layer_token: float = 0.0
    layer_pair: float = 0.0
    layer: float = 0.0
    token: float = 0.0
    logit: float = 0.0
    position: float = 0.0
    constant: float = 0.0

    def layer_bytes(self, layers: float, batch: float, context: float) -> float:
        """Return the part that grows with the layers."""
        return layers * (batch * context * (self.layer_token + context * self.layer_pair) + self.layer)

    def logit_bytes(self, batch: float, context: float, vocab: float) -> float:
        """Return the part that grows with the vocabulary."""
        return batch * context * vocab * self.logit

    def bytes(self, layers: float, batch: float, context: float, vocab: float) -> float:
        """Return the sum."""
        rest = batch * context * self.token + context * self.position + self.constant
        return (
            self.layer_bytes(layers, batch, context)
            + self.logit_bytes(batch, context, vocab)
            + max(rest, 0.0)
        )


@dataclass(frozen=True, slots=True)
class Activations:
    """Bytes of one pass over B sequences, without weights, their gradients and optimizer states.

    - `saved`: what the forward pass leaves for the backward pass;
    - `head`: the most until the loss's gradient reaches the last layer;
    - `top`: the most during the backward pass of the last layer, with all others still saved;
    - `bottom`: the most during that of the first layer, when all others are done.

    `error` is the largest relative error of the fit where they were measured.
    """

    saved: Terms
    head: Terms
    top: Terms
    bottom: Terms
    provenance: Provenance
    source: str
    error: float = 0.0


def params_of(linears: Sequence[Linear]) -> int:
    """Return the weights of linear modules."""
    return sum(linear.params for linear in linears)
