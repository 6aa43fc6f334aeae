"""The spec file of `kind: finetune`: a training job with a deadline, and what may be rented for it."""

import math
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, model_validator

from hgpu.artifacts.manifest import Strict
from hgpu.core.gpu import DType
from hgpu.core.training import Method as Method
from hgpu.core.training import Offload as Offload
from hgpu.core.training import Sharding
from hgpu.specs.serve import Count, Degree, OffersSpec, Positive


def _listed(value: Any) -> Any:
    """Return a single value as a list of one; a value given twice counts once."""
    if not isinstance(value, list):
        return [value]
    return [item for number, item in enumerate(value) if item not in value[:number]]


T = TypeVar("T")
Listed = Annotated[list[T], BeforeValidator(_listed)]
OneOrMore = Annotated[list[T], BeforeValidator(_listed), Field(min_length=1)]
TRAINED_DTYPES = (DType.BF16, DType.FP16, DType.FP32)


class HostSpec(Strict):
    """Memory of a machine beside its GPUs.

    `profile` names what `hgpu profile memory` measured on a machine like those that are planned for, and
    stands in place of all but the network. Else `bandwidth_gb_s` (10⁹ bytes/s) is what all cores together
    read and write, and `memory_gib` stands for machines whose memory isn't known. CXL cards count each with
    its own memory and bandwidth. `network_gb_s` is what one machine sends to others in one direction; without
    it no job spans several.
    """

    profile: str | None = None
    memory_gib: Positive | None = None
    bandwidth_gb_s: Positive | None = None
    cxl_cards: Annotated[int, Field(ge=0, le=16)] = 0
    cxl_memory_gib: Positive | None = None
    cxl_bandwidth_gb_s: Positive | None = None
    network_gb_s: Positive | None = None

    @model_validator(mode="after")
    def _whole_cards(self) -> "HostSpec":
        if self.cxl_cards and not (self.cxl_memory_gib and self.cxl_bandwidth_gb_s):
            raise ValueError("cxl_cards need cxl_memory_gib and cxl_bandwidth_gb_s of a card")
        if self.profile and (self.memory_gib or self.bandwidth_gb_s or self.cxl_cards):
            raise ValueError("profile says what memory there is: leave out what else is said of it")
        return self


class FinetuneSpec(Strict):
    """A fine-tune to plan, and to run with `hgpu tune`.

    - `method`, `rank`, `offload`, `checkpointing`, `micro_batch`, `sharding`, degrees and `gpus`: their
      variants compete; where no `gpus` are given, those of all offers do, and where no `sharding` is, plans
      try both and `hgpu tune` keeps copies whole;
    - `context`: tokens of a sequence; `batch`: sequences of an optimizer step over all GPUs; `micro_batch`:
      those of one pass on one GPU (where none is given, the plan chooses); `tokens` or `steps`: how long;
    - `precision`: mixed keeps fp32 master weights, gradients and Adam states in a full fine-tune in 16 bits,
      plain keeps all in `dtype`;
    - `targets`: names of the linear modules that get an adapter; `alpha`: LoRA's, by default twice the rank;
      `freeze_share`: part of the steps over which LaMDA freezes B; `rank_allocation`: energy is LaMDA++;
    - `data`: a file, or a folder of files, to train on: texts, prompts with completions, or chats.
    """

    kind: Literal["finetune"]
    model: str
    dtype: DType | None = None
    precision: Literal["mixed", "plain"] = "mixed"
    method: OneOrMore[Method]
    rank: OneOrMore[Count] = Field(default=[16])
    targets: OneOrMore[str] = Field(default=["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"])
    alpha: Positive | None = None
    freeze_share: Annotated[float, Field(gt=0, le=1)] = 0.3
    rank_allocation: Literal["uniform", "energy"] = "uniform"

    context: Count
    batch: Count
    micro_batch: Listed[Count] = Field(default=[])
    tokens: Count | None = None
    steps: Count | None = None
    checkpointing: OneOrMore[bool] = Field(default=[False])
    offload: OneOrMore[Offload] = Field(default=[Offload.NONE])

    sharding: OneOrMore[Sharding] = Field(default=[Sharding.NONE, Sharding.ZERO3])

    data: str | None = None
    learning_rate: Positive = 1e-4
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    seed: Annotated[int, Field(ge=0)] = 0
    save_every_steps: Count | None = None

    deadline_h: Positive | None = None
    budget_usd: Positive | None = None
    gpus: Listed[str] = Field(default=[])
    tensor_parallel: OneOrMore[Degree] = Field(default=[1])
    data_parallel: OneOrMore[Count] = Field(default=[1])
    host: HostSpec = HostSpec()
    offers: OffersSpec = OffersSpec()
    limits: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _a_length(self) -> "FinetuneSpec":
        if (self.tokens is None) == (self.steps is None):
            raise ValueError("give either tokens (of the whole fine-tune) or steps")
        return self

    @model_validator(mode="after")
    def _trainable(self) -> "FinetuneSpec":
        if self.dtype is not None and self.dtype not in TRAINED_DTYPES:
            raise ValueError(f"dtype must be {', '.join(TRAINED_DTYPES)} to train in, not {self.dtype}")
        return self

    @property
    def tokens_per_step(self) -> int:
        """Tokens of an optimizer step."""
        return self.batch * self.context

    @property
    def total_steps(self) -> int:
        """Optimizer steps, the last one full."""
        return self.steps or math.ceil((self.tokens or 0) / self.tokens_per_step)

    @property
    def total_tokens(self) -> int:
        """Tokens that all steps pass over."""
        return self.total_steps * self.tokens_per_step
