"""Payload of a routing trace: of which model it is, how it was recorded, and what it amounts to."""

from hgpu.artifacts.manifest import Strict
from hgpu.core.experts import CopySpeed
from hgpu.core.model import ModelSpec
from hgpu.core.provenance import Provenance

# A row a token, in the order in which the engine computed them: `ids`, `step`, `request`, `position`,
# `token`, `prefill` and, where `next_gate_recall` isn't null, `next_gate` (`hgpu.profilers.routing_record`).
TRACE_FILE = "trace.npz"


class RoutingPayload(Strict):
    """The experts of each token lie in `trace.npz`; its decodes ran `batch` at a time.

    `distinct_experts` is how many experts of a layer a step's decodes need, in the mean. `next_gate_recall`
    is, for each layer but the first, the part of a decoded token's experts that the layer's router names when
    it is shown the hidden states of the layer before; null where it couldn't be.
    """

    model: ModelSpec
    provenance: Provenance
    batch: int
    prompts: int
    temperature: float
    seed: int
    layers: int
    experts: int
    per_token: int
    steps: int
    prefill_tokens: int
    decode_tokens: int
    distinct_experts: float
    next_gate_recall: list[float] | None
    copies: CopySpeed
