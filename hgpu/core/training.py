"""What training adds to a model: its linear modules, adapters on them, and activations kept for backward."""

from collections.abc import Sequence
from dataclasses import dataclass

from hgpu.core.provenance import Provenance


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

    L·B·C·layer_token + L·B·C²·layer_pair + B·C·token + B·C·V·logit + C·position + constant for L layers,
    B sequences of C tokens and a vocabulary of V.
    """

    layer_token: float = 0.0
    layer_pair: float = 0.0
    token: float = 0.0
    logit: float = 0.0
    position: float = 0.0
    constant: float = 0.0

    def layer_bytes(self, layers: float, batch: float, context: float) -> float:
        """Return the part that grows with the layers."""
        return layers * batch * context * (self.layer_token + context * self.layer_pair)

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
