"""Bytes of activations, measured on small copies of a model on the CPU and extrapolated.

Each copy runs one real training pass of transformers' own code, under saved-tensor hooks and with every
storage's birth and death noted. What is saved and what lives at most is linear in layers, tokens and
vocabulary, and for each layer and token in the width of a head; copies of two widths, two depths, two
vocabularies and several lengths give the coefficients (least squares); what these leave over is the error.

The CPU's kernels save what the CUDA ones of the same operators do (attention: queries, keys, values, output
and a log-sum of each row); memory inside a kernel isn't seen.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np

from hgpu.core.errors import InputError, InvalidMeasurement
from hgpu.core.gpu import DType
from hgpu.core.provenance import Provenance
from hgpu.core.training import Activations, Terms
from hgpu.profilers.live_bytes import Timeline
from hgpu.profilers.shrunk import NARROWEST, Shrunk, shrunk

WIDTHS = (1, 2)  # times the narrowest head
DEPTHS = (2, 3)
VOCAB_SHARES = (1.0, 0.75)
SIZES = ((1, 64), (2, 64), (1, 128), (3, 96))  # sequences, and tokens of each
# Where weights are trained, their gradients come and go: so many tokens that activations outweigh these.
LONG_SIZES = ((1, 512), (2, 512), (1, 1024), (3, 768))
LARGEST_ERROR = 0.02
QUANTITIES = ("saved", "head", "top", "bottom")
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """What is trained: `adapt` puts adapters into a model and freezes the rest (None: all is trained).

    `mixed`: weights in fp32, computed with in bf16 under autocast.
    """

    config: dict[str, Any] = field(repr=False)
    name: str
    dtype: DType
    checkpointing: bool = False
    mixed: bool = False
    adapt: Callable[[Any], Any] | None = None
    narrowest: int = NARROWEST


@dataclass(frozen=True, slots=True)
class Run:
    """One pass of a copy, and the bytes that it took."""

    small: Shrunk
    batch: int
    context: int
    bytes: dict[str, float]

    def features(self) -> list[float]:
        """What the bytes are linear in: for each width, then what doesn't depend on it."""
        tokens, factor = self.batch * self.context, self.small.factor
        layer_tokens = self.small.layers * tokens
        return [
            layer_tokens,
            layer_tokens * factor,
            layer_tokens * self.context,
            self.small.layers,
            tokens,
            tokens * factor,
            tokens * self.small.vocab,
            self.context * factor,
            1.0,
            self.small.vocab * factor,
        ]


def measure_activations(asked: Asked, progress: Progress | None = None) -> Activations:
    """Return the activations of a training pass of a model at its true widths.

    Raises InputError where torch is missing or the model can't be shrunk, and InvalidMeasurement where the
    bytes don't follow the terms.
    """
    _require_torch()
    runs = list(small_runs(asked, progress))
    fits = {name: fitted(runs, name) for name in QUANTITIES}
    error = max(error for _, error in fits.values())
    if error > LARGEST_ERROR:
        raise InvalidMeasurement(
            f"the activations of {asked.name} don't follow what they should grow with",
            f"{error:.1%} of the bytes of a copy are left over",
            "plan with estimated activations (--estimate)",
        )
    source = f"{len(runs)} passes of copies with {DEPTHS[0]} and {DEPTHS[1]} layers, extrapolated"
    return Activations(
        **{name: terms for name, (terms, _) in fits.items()},
        provenance=Provenance.MEASURED,
        source=source,
        error=error,
    )


def _require_torch() -> None:
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise InputError(
            "activations can't be measured here",
            f"{error.name} isn't installed",
            "pip install 'hgpu[tune]', or plan with estimated activations",
        ) from error


def small_runs(asked: Asked, progress: Progress | None = None) -> Iterator[Run]:
    """Run a pass of every copy, at two lengths each."""
    copies = list(product(WIDTHS, DEPTHS, VOCAB_SHARES))
    for number, (width, layers, share) in enumerate(copies):
        small = shrunk(asked.config, asked.name, width * asked.narrowest, layers, share)
        model = build(small, asked)
        sizes = LONG_SIZES if asked.adapt is None else SIZES
        for batch, context in sizes[number % 2 :: 2]:  # enough to tell all terms apart
            yield Run(small, batch, context, measure_pass(model, small, batch, context, asked.mixed))
        if progress is not None:
            progress(number + 1, len(copies))


def build(small: Shrunk, asked: Asked) -> Any:
    """Return a model of a config, with random weights, as it would be trained."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = {key: value for key, value in small.config.items() if key != "model_type"}
    config = AutoConfig.for_model(small.config["model_type"], **fields)
    formats = {DType.BF16: torch.bfloat16, DType.FP16: torch.float16, DType.FP32: torch.float32}
    dtype = torch.float32 if asked.mixed else formats[asked.dtype]
    with torch.random.fork_rng():
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
        if asked.adapt is not None:
            model = asked.adapt(model)
    model.train()
    if asked.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model


def measure_pass(
    model: Any, small: Shrunk, batch: int, context: int, mixed: bool = False
) -> dict[str, float]:
    """Return the bytes of one pass: what was saved, and the most that lived in each of its parts.

    The last part ends where the embedding's turn comes: that makes no more than two tensors like its table,
    which an optimizer step makes, too.
    """
    import torch

    timeline = Timeline([*model.parameters(), *model.buffers()])
    saved = _Saved(timeline)
    ids = torch.randint(0, small.vocab, (batch, context), generator=torch.Generator().manual_seed(0))
    hooks = [
        layer.register_forward_hook(_marking(timeline, f"layer {number}"))
        for number, layer in enumerate(decoder_layers(model, small.layers))
    ]
    hooks.append(model.get_input_embeddings().register_forward_hook(_marking(timeline, "embedding")))
    hooked = torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda tensor: tensor)
    cast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed)
    with timeline.tracking():
        with hooked, cast:
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        saved_bytes = saved.forget()
        loss.backward()
        timeline.mark("embedding")  # where it is frozen
    for hook in hooks:
        hook.remove()
    grads = [weight.grad for weight in model.parameters() if weight.grad is not None]
    last = small.layers - 1
    found = {
        "saved": float(saved_bytes),
        "head": float(timeline.peak_bytes("start", f"layer {last}", grads)),
        "top": float(timeline.peak_bytes(f"layer {last}", f"layer {last - 1}", grads)),
        "bottom": float(timeline.peak_bytes("layer 0", "embedding", grads)),
    }
    model.zero_grad(set_to_none=True)
    return found


class _Saved:
    """Counts the storages that autograd saves, each once, weights left out."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._storages: dict[int, Any] = {}

    def pack(self, tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if not self._timeline.is_weight(tensor):
            self._storages[storage._cdata] = storage
        return tensor

    def forget(self) -> int:
        """Return the bytes, and let the storages go."""
        total = sum(storage.nbytes() for storage in self._storages.values())
        self._storages.clear()
        return int(total)


def decoder_layers(model: Any, layers: int) -> Any:
    """Return the list of a model's decoder layers."""
    from torch.nn import ModuleList

    return next(m for m in model.modules() if isinstance(m, ModuleList) and len(m) == layers)


def _marking(timeline: Timeline, name: str) -> Callable[..., None]:
    """Return a hook that marks when the gradient of a layer's output is there."""

    def hook(_module: Any, _inputs: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        if hidden.requires_grad:
            hidden.register_hook(lambda _gradient: timeline.mark(name))

    return hook


def fitted(runs: Sequence[Run], name: str, factor: float = 1.0) -> tuple[Terms, float]:
    """Return the terms at a factor of the true widths, and the largest relative error over the runs.

    What grows with the embedding table is no activation: where the head shares it, its first gradient waits
    for the second, and planners count gradients themselves.
    """
    features = np.array([run.features() for run in runs])
    wanted = np.array([run.bytes[name] for run in runs])
    scale = features.max(axis=0)
    found, *_ = np.linalg.lstsq(features / scale, wanted, rcond=1e-10)
    error = float(np.max(np.abs(features / scale @ found - wanted) / wanted))
    narrow, wide, pair, layer, token, wide_token, logit, position, constant, _ = (found / scale).tolist()
    terms = Terms(
        layer_token=narrow + factor * wide,
        layer_pair=pair,
        layer=layer,
        token=token + factor * wide_token,
        logit=logit,
        position=factor * position,
        constant=constant,
    )
    return terms, error
