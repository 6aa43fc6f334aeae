"""The spec file of `kind: serve`: a model, a workload, objectives, and what may be rented."""

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from hgpu.artifacts.manifest import Strict
from hgpu.core.gpu import DType
from hgpu.core.offer import Market
from hgpu.core.operating_point import KV_DTYPES, EngineOptions, Mode
from hgpu.core.slo import Objective, Slo, Tier
from hgpu.specs.offload import OffloadSpec

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _whole(value: Any) -> Any:
    """Return 1e8 as the whole number that it means: PyYAML takes it for a text."""
    try:
        number = float(value) if isinstance(value, str) else math.nan
    except ValueError:
        return value
    return int(number) if number.is_integer() else value


Count = Annotated[int, BeforeValidator(_whole), Field(ge=1)]
Degree = Literal[1, 2, 4, 8]
Routing = Literal["input", "lengths"]


class WorkloadSpec(Strict):
    """Lengths by name or from a trace file, and a rate (a trace's own where none is given)."""

    lengths: str | None = None
    trace: str | None = None
    rate_rps: Positive | None = None
    requests: Count = 20_000
    seed: Annotated[int, Field(ge=0)] = 0
    input_edges: list[int] | None = None
    output_edges: list[int] | None = None
    allow_outside: bool = False

    @model_validator(mode="after")
    def _one_source(self) -> "WorkloadSpec":
        if (self.lengths is None) == (self.trace is None):
            raise ValueError("give either lengths (a distribution's name) or trace (a file)")
        if self.lengths is not None and self.rate_rps is None:
            raise ValueError("lengths need a rate_rps (requests per second)")
        return self


class Objectives(Strict):
    """Objectives in milliseconds. `percentile` percent of requests keep each."""

    tpot_ms: Positive | None = None
    ttft_ms: Positive | None = None
    e2e_ms: Positive | None = None
    percentile: Annotated[float, Field(ge=50, lt=100)] = 99.0

    @property
    def given(self) -> bool:
        """Tell whether there is any."""
        return (self.tpot_ms, self.ttft_ms, self.e2e_ms) != (None, None, None)

    def to_slo(self) -> Slo:
        """Return the objectives in seconds."""

        def objective(limit_ms: float | None) -> Objective | None:
            return None if limit_ms is None else Objective(limit_ms / 1e3, self.percentile)

        return Slo(objective(self.ttft_ms), objective(self.tpot_ms), objective(self.e2e_ms))


class TierSpec(Objectives):
    """Objectives of a part of the requests."""

    name: Annotated[str, Field(min_length=1, pattern=r"^[\w.-]+$")]
    share: Annotated[float, Field(gt=0, le=1)]


class SloSpec(Objectives):
    """Objectives of all requests, or `tiers` of them whose shares make up 1."""

    tiers: list[TierSpec] = Field(default_factory=list)

    @model_validator(mode="after")
    def _some(self) -> "SloSpec":
        if bool(self.tiers) == self.given or not all(tier.given for tier in self.tiers):
            raise ValueError(
                "give at least one of tpot_ms, ttft_ms, e2e_ms: for all requests, or for each tier"
            )
        total = sum(tier.share for tier in self.tiers)
        if self.tiers and abs(total - 1) > 1e-6:
            raise ValueError(f"the shares of the tiers make up {total:g}, not 1")
        if len({tier.name for tier in self.tiers}) < len(self.tiers):
            raise ValueError("two tiers have the same name")
        return self

    def to_tiers(self) -> tuple[Tier, ...]:
        """Return the tiers; where there are none, all requests are one."""
        if not self.tiers:
            return (Tier("", 1.0, self.to_slo()),)
        return tuple(Tier(tier.name, tier.share, tier.to_slo()) for tier in self.tiers)


class EngineSpec(Strict):
    """vLLM's settings, with its names; see EngineOptions. Several token budgets are ways to run an engine."""

    max_num_batched_tokens: Count | Annotated[list[Count], Field(min_length=1)] = 2048
    max_num_seqs: Count = 256
    max_model_len: Count = 8192
    gpu_memory_utilization: Annotated[float, Field(gt=0, lt=1)] = 0.9
    enforce_eager: bool = False
    kv_cache_gib: Positive | None = None
    kv_cache_dtype: DType | None = None

    @field_validator("kv_cache_dtype", mode="before")
    @classmethod
    def _can_be_asked_for(cls, dtype: object) -> object:
        if dtype is not None and dtype not in KV_DTYPES:
            raise ValueError(f"an engine keeps its KV cache in {', '.join(KV_DTYPES)}, not in {dtype}")
        return dtype

    @model_validator(mode="after")
    def _a_token_each(self) -> "EngineSpec":
        if min(self.budgets) < self.max_num_seqs and len(self.budgets) > 1:
            raise ValueError(
                f"max_num_batched_tokens {min(self.budgets)} is below max_num_seqs {self.max_num_seqs}, and "
                "vLLM refuses that: a step could not decode a token for each sequence"
            )
        return self

    @property
    def budgets(self) -> list[int]:
        """Token budgets of a step, rising."""
        given = self.max_num_batched_tokens
        return sorted(set(given)) if isinstance(given, list) else [given]

    def to_options(self) -> list[EngineOptions]:
        """Return the options for each token budget, with bytes instead of GiB."""
        return [
            EngineOptions(
                tokens,
                self.max_num_seqs,
                self.max_model_len,
                self.gpu_memory_utilization,
                self.enforce_eager,
                None if self.kv_cache_gib is None else int(self.kv_cache_gib * 2**30),
                self.kv_cache_dtype,
            )
            for tokens in self.budgets
        ]


class OffersSpec(Strict):
    """Which offers may be rented: a price book (a name or a YAML file) and filters."""

    book: str = "default"
    clouds: list[str] | None = None
    regions: list[str] | None = None
    markets: list[Market] = Field(default_factory=lambda: [Market.ON_DEMAND])
    max_price_age_days: Annotated[int, Field(ge=0)] | None = None


class SpotSpec(Strict):
    """How far spot machines are relied on.

    `max_share` of each bucket may go to them. They are interrupted so often and gone for so long
    each time, which takes its part off what they serve.
    """

    max_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    interruptions_per_hour: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.05
    recovery_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 300.0

    @property
    def availability(self) -> float:
        """Part of the time that a machine is there: up for 1/λ, then gone for the recovery."""
        return 1.0 / (1.0 + self.interruptions_per_hour * self.recovery_s / 3600.0)


class ServeSpec(Strict):
    """A service to plan for.

    `routing` says what a router knows of a request: its input, or both lengths before it has run.
    """

    kind: Literal["serve"]
    model: str
    dtype: DType | None = None
    workload: WorkloadSpec
    slo: SloSpec
    gpus: Annotated[list[str], Field(min_length=1)]
    tensor_parallel: list[Degree] = Field(default=[1], min_length=1)
    modes: list[Mode] = Field(default=[Mode.MIXED], min_length=1)
    engine: EngineSpec = EngineSpec()
    offload: OffloadSpec = OffloadSpec()
    offers: OffersSpec = OffersSpec()
    routing: Routing = "input"
    spot: SpotSpec = SpotSpec()
    limits: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    min_engines: Count = 1
    spare_machines: Annotated[int, Field(ge=0, le=8)] = 0
    budget_usd_per_hour: Positive | None = None

    @model_validator(mode="after")
    def _something_to_keep(self) -> "ServeSpec":
        if Mode.PD in self.modes and not any(tier.slo.tpot for tier in self.slo.to_tiers()):
            raise ValueError("mode 'pd' holds prompts back to keep a tpot_ms, and slo has none")
        return self
