"""Payload of activations that were measured for a model: a row for each way to train it."""

from hgpu.artifacts.manifest import Strict
from hgpu.core.gpu import DType
from hgpu.core.model import ModelSpec
from hgpu.core.provenance import Provenance
from hgpu.core.training import Activations


class ActivationRow(Strict):
    """One way to train: `rank` is 0 and `targets` are empty where the whole model is trained.

    `mixed`: weights in fp32, computed with in `dtype` of the payload under autocast.
    """

    method: str
    rank: int
    targets: list[str]
    checkpointing: bool
    mixed: bool
    activations: Activations


class ActivationsPayload(Strict):
    """Bytes of a training pass in one number format, by what they grow with."""

    model: ModelSpec
    model_source: str
    dtype: DType
    rows: list[ActivationRow]
    provenance: Provenance
