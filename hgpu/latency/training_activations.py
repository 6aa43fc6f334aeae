"""Activations of a decoder layer in closed form, where they aren't measured.

What autograd saves of transformers' Llama-like layer (RMSNorm in fp32, attention in one kernel, a gated
MLP), read from its code; for Llama and Qwen2 it is what the measurement gives, and other families differ by a
few norms. With w bytes an element, hidden size H, Q and K the widths of queries and keys, and I of the MLP, a
layer saves for each token

    norms       2·(4H + 4), and 2·wH more where their weights are trained
    attention   w·(2Q + 2K) and 4 a head
    MLP         3·wI
    inputs      of each linear that is trained: w·in once for those that share one; a copy in fp32 for each
                LoRA over 16 bits, and 4 bytes of rank; LaMDA saves its rank alone
"""

from collections.abc import Sequence

from hgpu.core.gpu import DType
from hgpu.core.model import ModelSpec
from hgpu.core.provenance import Provenance
from hgpu.core.training import Activations, Linear, Method, Terms, Variant

SHARED_INPUTS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("down_proj",))
SAVED_LOGIT, LARGEST_LOGIT = 4.0, 12.0  # log-probabilities in fp32; with them their gradient and the logits'
AUTOCAST = 10.0
SOURCE = "closed form of a Llama-like layer in transformers"


def estimated_activations(
    model: ModelSpec,
    linears: Sequence[Linear],
    targets: Sequence[Linear],
    dtype: DType,
    variant: Variant,
    mixed: bool = False,
) -> Activations:
    """Return the activations of a pass; `targets` are the linears that have adapters.

    `mixed`: a model in fp32 under autocast, whose residual stream is in fp32. That adds 10H a layer and
    token, as measured.
    """
    element = dtype.bits / 8
    hidden = float(model.hidden_size)
    inner = inner_bytes(model, linears, element)
    trained = 2 * element * hidden if variant.method is Method.FULL else 0.0
    layer = inner + 2 * (4 * hidden + 4) + trained + _inputs(linears, targets, element, variant)
    layer += AUTOCAST * hidden if mixed and element < 4 else 0.0
    end = 4 * hidden + 4 + trained if variant.method is Method.FULL else 0.0  # last norm and head
    work = element * (2 * _out(linears, "up_proj") + hidden)
    kept = (4.0 if mixed else element) * hidden if variant.checkpointing else layer
    again = layer if variant.checkpointing else 0.0  # computed once more, for one layer at a time
    position = 2 * element * _out(linears, "q_proj") / model.attention_heads
    return Activations(
        saved=Terms(layer_token=kept, token=end, logit=SAVED_LOGIT, position=position),
        head=Terms(layer_token=kept, token=end, logit=LARGEST_LOGIT, position=position),
        top=Terms(layer_token=kept, token=again + work, position=position),
        bottom=Terms(token=layer + work + (kept if variant.checkpointing else 0.0), position=position),
        provenance=Provenance.ESTIMATED,
        source=SOURCE,
    )


def inner_bytes(model: ModelSpec, linears: Sequence[Linear], element: float) -> float:
    """Return the bytes a layer and token that tensor parallelism divides: attention's and the MLP's."""
    attention = element * 2 * (_out(linears, "q_proj") + _out(linears, "k_proj")) + 4 * model.attention_heads
    return attention + 3 * element * _out(linears, "up_proj")


def _inputs(linears: Sequence[Linear], targets: Sequence[Linear], element: float, variant: Variant) -> float:
    """Return what the linears save of their inputs, of a token in one layer."""
    ranks = 4.0 * variant.rank * len(targets)
    if variant.method is Method.LAMDA:
        return ranks
    if variant.method is Method.LORA and element < 4:
        return ranks + sum(4.0 * target.in_features for target in targets)
    names = {linear.name for linear in (linears if variant.method is Method.FULL else targets)}
    widths = {linear.name: linear.in_features for linear in linears}
    shared = [group for group in SHARED_INPUTS if names & set(group)]
    return ranks + sum(element * widths.get(group[0], 0) for group in shared)


def _out(linears: Sequence[Linear], name: str) -> float:
    """Return a linear's width, 0 where the model hasn't it (its MLP is routed)."""
    return float(next((linear.out_features for linear in linears if linear.name == name), 0))
