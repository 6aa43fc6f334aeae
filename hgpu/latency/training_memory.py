"""Memory of a training step, moment by moment: on each GPU, and on the machine's host.

A step's peak is at one of four moments: when the loss's gradient is made (everything saved, and the logits),
in the backward pass of the last layer, in that of the first (all gradients there), or in the optimizer step.
A full fine-tune in mixed precision is counted as `hgpu tune` trains: torch's autocast in whole copies, FSDP2
in sharded ones; by the 18P convention under tensor parallelism, and by 20P on the host where it is offloaded
(`hgpu/latency/training_states.py`). Adapters are in fp32, as PEFT makes them, and whole on each GPU.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from hgpu.core.gpu import DType
from hgpu.core.model import ModelSpec
from hgpu.core.training import (
    Activations,
    Linear,
    Method,
    Offload,
    Sharding,
    Terms,
    TrainableCount,
    Variant,
)
from hgpu.core.training_tensors import TensorName, TrainingShape, TrainingTensor, offloaded_tensors
from hgpu.latency.training_activations import inner_bytes
from hgpu.latency.training_counts import frozen_count, lamda_count, lora_count
from hgpu.latency.training_states import (
    AUTOCAST_COPY_BYTES,
    BUCKET_BYTES,
    Convention,
    StateBytes,
    state_bytes,
)

ITEMS = ("weights", "gradients", "optimizer", "activations", "logits", "workspace")
HOST_ITEMS = {
    TensorName.MOMENTUM: "optimizer",
    TensorName.VARIANCE: "optimizer",
    TensorName.FP32_MASTER: "optimizer",
    TensorName.FP32_GRADIENTS: "gradients",
    TensorName.BF16_GRADIENTS: "gradients",
    TensorName.BF16_WEIGHTS: "weights",
    TensorName.ACTIVATIONS: "activations",
}
ADAPTER_STATES = StateBytes(4.0, 4.0, 8.0)
TEMPORARIES = 2  # of the largest trained tensor, that AdamW makes on the way


@dataclass(frozen=True, slots=True)
class Training:
    """A model as it is trained: its linears, those with adapters, and in which formats.

    `context` is the tokens of a sequence and `accumulation` how many passes make an optimizer step.
    """

    model: ModelSpec
    linears: tuple[Linear, ...]
    targets: tuple[Linear, ...]
    dtype: DType
    mixed: bool
    context: int
    freeze_share: float = 0.3

    @property
    def element_bytes(self) -> float:
        """Bytes of a weight."""
        return self.dtype.bits / 8

    @property
    def largest_layer_params(self) -> int:
        """The most parameters that are gathered at once: a decoder layer, or the embedding table."""
        model = self.model
        table = model.vocab_size * model.hidden_size
        layers = model.total_params - model.embedding_params - table
        return max(table, layers // model.layers)

    def count(self, variant: Variant) -> TrainableCount:
        """Return how many parameters a variant trains."""
        if variant.method is Method.LORA:
            return lora_count(self.targets, variant.rank)
        if variant.method is Method.LAMDA:
            return lamda_count(self.targets, variant.rank, self.freeze_share)
        total = self.model.total_params
        return TrainableCount(total, float(total), total)

    def convention(self, variant: Variant) -> Convention:
        """Return whose count of bytes holds for the parameters of a full fine-tune."""
        if variant.offload is not Offload.NONE:
            return Convention.PAPER
        if self.element_bytes == 4 or not self.mixed:
            return Convention.PLAIN
        if variant.tp > 1:
            return Convention.DEEPSPEED
        return (
            Convention.FSDP if variant.dp > 1 and variant.sharding is Sharding.ZERO3 else Convention.AUTOCAST
        )

    def convention_text(self, variant: Variant) -> str:
        """Return how the states of a variant are counted, in words."""
        if variant.method is not Method.FULL:
            frozen = f"{self.element_bytes:g} bytes a frozen parameter"
            return f"{frozen}, {ADAPTER_STATES.total:g} a trained one (adapters in fp32, as PEFT makes them)"
        convention = self.convention(variant)
        where = " on the host" if variant.offload is not Offload.NONE else ""
        copy = " and 2 of copies in passes" if convention is Convention.AUTOCAST else ""
        total = state_bytes(convention, self.element_bytes).total
        return f"{convention}{where}: {total:g} bytes a parameter{copy}"

    def states(self, variant: Variant) -> StateBytes:
        """Return the bytes of a trained parameter on a GPU."""
        if variant.method is not Method.FULL:
            return ADAPTER_STATES
        return state_bytes(self.convention(variant), self.element_bytes)


@dataclass(frozen=True, slots=True)
class Moment:
    """Bytes by item at a moment of a step, on each GPU and on the machine's host."""

    name: str
    device: Mapping[str, float]
    host: Mapping[str, float]

    @property
    def device_bytes(self) -> float:
        """All that a GPU holds."""
        return sum(self.device.values())

    @property
    def host_bytes(self) -> float:
        """All that the host holds."""
        return sum(self.host.values())


def moments(
    training: Training,
    variant: Variant,
    activations: Activations,
    *,
    accumulation: int = 1,
    fixed_bytes: float = 0.0,
) -> tuple[Moment, ...]:
    """Return the moments of a step after the first; `fixed_bytes` are the driver's and the allocator's.

    LaMDA has one more: the optimizer step when all of B is frozen.
    """
    states = _device_states(training, variant)
    host = _host(training, variant)
    early = 1.0 if accumulation > 1 else 0.0  # gradients of earlier passes are there from the start
    begun = max(early, _head_share(training, variant))
    passes = [
        ("loss", activations.head, early),
        ("backward of the last layer", activations.top, begun),
        ("backward of the first layer", activations.bottom, 1.0),
    ]
    found = []
    for name, terms, gradients in passes:
        logits = terms.logit * variant.micro_batch * training.context * training.model.vocab_size / variant.tp
        kept = _kept(training, variant, terms, activations)
        device = _items(states, gradients, kept, logits, fixed_bytes)
        device["weights"] += _copies(training, variant)
        device["gradients"] += _undivided(training, variant)
        found.append(Moment(name, device, host))
    step = _items(states, 1.0, 0.0, 0.0, fixed_bytes + _temporaries(training, variant))
    found.append(Moment("optimizer step", step, host))
    if variant.method is Method.LAMDA:
        late = _device_states(training, variant, frozen=True)
        device = _items(late, 1.0, 0.0, 0.0, fixed_bytes + _temporaries(training, variant))
        found.append(Moment("optimizer step, B frozen", device, host))
    return tuple(found)


def peak(found: tuple[Moment, ...]) -> Moment:
    """Return the moment at which a GPU holds most."""
    return max(found, key=lambda moment: moment.device_bytes)


def _items(
    states: StateBytes, gradients: float, activations: float, logits: float, workspace: float
) -> dict[str, float]:
    values = (states.weights, gradients * states.gradients, states.optimizer, activations, logits, workspace)
    return dict(zip(ITEMS, values, strict=True))


def _device_states(training: Training, variant: Variant, frozen: bool = False) -> StateBytes:
    """Return the bytes of all weights, gradients and optimizer states that one GPU holds."""
    count = training.count(variant)
    trained, each = (count.final if frozen else count.peak), training.states(variant)
    parts = variant.tp * (variant.dp if variant.sharding is Sharding.ZERO3 else 1)
    gathered = 2 * training.element_bytes * training.largest_layer_params / variant.tp
    extras = 4.0 * _frozen_extras(training, variant, count.peak - trained)
    if variant.offload is not Offload.NONE:
        if variant.method is Method.FULL:
            return StateBytes(gathered, 0.0, 0.0)
        weights = gathered + extras + each.weights * trained
        return StateBytes(weights, each.gradients * trained, each.optimizer * trained)
    gathered = gathered if parts > variant.tp else 0.0
    if variant.method is Method.FULL:
        weights = gathered + each.weights * trained / parts
    else:  # whole adapters on parts of the frozen weights
        frozen_bytes = training.element_bytes * training.model.total_params
        weights = frozen_bytes / parts + gathered + (extras + each.weights * trained) / variant.tp
        parts = variant.tp
    gradients = each.gradients * trained / parts
    if variant.dp > 1 and variant.sharding is Sharding.NONE:
        gradients += min(BUCKET_BYTES, gradients)
    return StateBytes(weights, gradients, each.optimizer * trained / parts)


def _undivided(training: Training, variant: Variant) -> float:
    """Return a layer's gradients before they are divided, as they are made and in fp32 to be summed."""
    sharded = variant.dp > 1 and variant.sharding is Sharding.ZERO3 and variant.offload is Offload.NONE
    if variant.method is not Method.FULL or not sharded:
        return 0.0
    return (training.element_bytes + 4.0) * training.largest_layer_params / variant.tp


def _copies(training: Training, variant: Variant) -> float:
    """Return the copies that autocast makes of weights for the time of a pass."""
    if variant.method is not Method.FULL or training.convention(variant) is not Convention.AUTOCAST:
        return 0.0
    return AUTOCAST_COPY_BYTES * training.model.dense_params


def _frozen_extras(training: Training, variant: Variant, frozen_columns: int) -> float:
    """Return the parameters that LaMDA keeps frozen: A, the first B·S, and B's frozen columns."""
    if variant.method is not Method.LAMDA:
        return 0.0
    anchor = sum(variant.rank * target.out_features * target.count for target in training.targets)
    return frozen_count(training.targets, variant.rank) + anchor + frozen_columns


def _head_share(training: Training, variant: Variant) -> float:
    """Return the part of the gradients that are there when the last layer's turn comes."""
    if variant.method is not Method.FULL:
        return 0.0
    model = training.model
    head = model.vocab_size * model.hidden_size
    layer = (model.total_params - model.embedding_params - head) / model.layers
    return (head + layer) / model.total_params


def _kept(training: Training, variant: Variant, terms: Terms, activations: Activations) -> float:
    """Return the activations on one GPU; checkpoints that are offloaded aren't there."""
    offloaded = variant.checkpointing and variant.offload is not Offload.NONE
    layers = 1 if offloaded else training.model.layers
    whole = terms.bytes(layers, variant.micro_batch, training.context, 0)
    if variant.tp == 1:
        return whole
    return whole * (1 - _inner_share(training, activations) * (1 - 1 / variant.tp))


def _inner_share(training: Training, activations: Activations) -> float:
    layer = max(activations.saved.layer_token, activations.bottom.token)
    return min(1.0, inner_bytes(training.model, training.linears, training.element_bytes) / layer)


def _temporaries(training: Training, variant: Variant) -> float:
    """Return what AdamW holds on the way: two tensors like the largest that is trained, in its format."""
    if variant.offload is not Offload.NONE and variant.method is Method.FULL:
        return 0.0
    if variant.method is Method.FULL:
        each = 4.0 if training.mixed else training.element_bytes
        return TEMPORARIES * each * training.model.vocab_size * training.model.hidden_size / variant.tp
    widest = max(max(t.in_features, t.out_features) for t in training.targets)
    return TEMPORARIES * 4.0 * variant.rank * widest


def host_tensors(training: Training, variant: Variant) -> tuple[TrainingTensor, ...]:
    """Return what an offloaded variant keeps on its machine's host, empty where nothing is.

    Adapters and their optimizer stay on the GPUs; without checkpointing, activations do too.
    """
    if variant.offload is Offload.NONE:
        return ()
    names = set(TensorName)
    if variant.method is not Method.FULL:
        names = {TensorName.BF16_WEIGHTS, TensorName.ACTIVATIONS}
    if not variant.checkpointing:
        names -= {TensorName.ACTIVATIONS}
    found = [t for t in offloaded_tensors(host_shape(training, variant)) if t.name in names]
    if variant.method is Method.FULL:
        return tuple(found)
    return tuple(replace(tensor, optimizer_bytes=0) for tensor in found)


def host_shape(training: Training, variant: Variant) -> TrainingShape:
    """Return the step of an offloaded variant; it runs on the GPUs of one machine."""
    model = training.model
    return TrainingShape(
        model.total_params,
        model.layers,
        model.hidden_size,
        variant.micro_batch,
        training.context,
        variant.gpus,
        model.attention_flops_per_pair + model.window_attention_flops_per_pair,
    )


def _host(training: Training, variant: Variant) -> dict[str, float]:
    found = dict.fromkeys(ITEMS, 0.0)
    for tensor in host_tensors(training, variant):
        found[HOST_ITEMS[tensor.name]] += tensor.size_bytes
    return found
