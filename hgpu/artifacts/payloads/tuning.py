"""Payload of a fine-tune that has run: what was trained, on what, and what it took."""

from hgpu.artifacts.manifest import FileRef, Strict
from hgpu.core.provenance import Provenance
from hgpu.core.training import Sharding


class TrainedParameters(Strict):
    """How many parameters had gradients and optimizer states: most, on average over the steps, at the end."""

    peak: int
    mean: float
    final: int
    of_model: int


class Memory(Strict):
    """Bytes. On a GPU what torch had allocated, on a CPU the memory of the process.

    Of several processes, `peak_bytes` is of the one that took most.

    `before_bytes` was taken before the model was loaded, `peak_bytes` is the most while training: the
    difference is what the fine-tune needs. None where the system doesn't tell.
    """

    of: str
    before_bytes: int | None
    peak_bytes: int | None


class HeldOut(Strict):
    """Mean loss (nats a token) on sequences that weren't trained on, before and after."""

    sequences: int
    before: float
    after: float


class TuningPayload(Strict):
    """A fine-tune. `losses` (nats a token) has one a step; `resumes` counts its fresh starts after an end.
    `tokens` went through the model, without what fills the sequences of examples.

    `processes` trained, a device each, with copies of the model by `sharding`. `seconds` is spent in steps,
    in all runs together, `tokens_per_s` what that gives. `ranks` is by module, empty for a full fine-tune.
    `weights` is the folder of what was trained, under the results; `files` is what it holds.
    """

    model: str
    method: str
    ranks: dict[str, int]
    context: int
    batch: int
    steps: int
    tokens: int
    documents: int
    sequences: int
    seed: int
    losses: list[float]
    held_out: HeldOut | None
    seconds: float
    tokens_per_s: float
    processes: int
    sharding: Sharding
    resumes: int
    memory: Memory
    trained: TrainedParameters
    weights: str
    files: list[FileRef]
    provenance: Provenance
