"""The spec file of `kind: serve`: a model, a workload, objectives, and what may be rented."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from hgpu.artifacts.manifest import Strict
from hgpu.core.gpu import DType
from hgpu.core.offer import Market
from hgpu.core.operating_point import KV_DTYPES, EngineOptions
from hgpu.core.slo import Objective, Slo

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Degree = Literal[1, 2, 4, 8]


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


class SloSpec(Strict):
    """Objectives in milliseconds; at least one. `percentile` percent of requests keep each."""

    tpot_ms: Positive | None = None
    ttft_ms: Positive | None = None
    e2e_ms: Positive | None = None
    percentile: Annotated[float, Field(ge=50, lt=100)] = 99.0

    @model_validator(mode="after")
    def _any(self) -> "SloSpec":
        if self.tpot_ms is None and self.ttft_ms is None and self.e2e_ms is None:
            raise ValueError("give at least one of tpot_ms, ttft_ms and e2e_ms")
        return self

    def to_slo(self) -> Slo:
        """Return the objectives in seconds."""

        def objective(limit_ms: float | None) -> Objective | None:
            return None if limit_ms is None else Objective(limit_ms / 1e3, self.percentile)

        return Slo(objective(self.ttft_ms), objective(self.tpot_ms), objective(self.e2e_ms))


class EngineSpec(Strict):
    """vLLM's settings, with its names; see EngineOptions."""

    max_num_batched_tokens: Count = 2048
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

    def to_options(self) -> EngineOptions:
        """Return the options with bytes instead of GiB."""
        return EngineOptions(
            self.max_num_batched_tokens,
            self.max_num_seqs,
            self.max_model_len,
            self.gpu_memory_utilization,
            self.enforce_eager,
            None if self.kv_cache_gib is None else int(self.kv_cache_gib * 2**30),
            self.kv_cache_dtype,
        )


class OffersSpec(Strict):
    """Which offers may be rented: a price book (a name or a YAML file) and filters."""

    book: str = "default"
    clouds: list[str] | None = None
    regions: list[str] | None = None
    markets: list[Market] = Field(default_factory=lambda: [Market.ON_DEMAND])


class ServeSpec(Strict):
    """A service to plan for."""

    kind: Literal["serve"]
    model: str
    dtype: DType | None = None
    workload: WorkloadSpec
    slo: SloSpec
    gpus: Annotated[list[str], Field(min_length=1)]
    tensor_parallel: list[Degree] = Field(default=[1], min_length=1)
    engine: EngineSpec = EngineSpec()
    offers: OffersSpec = OffersSpec()
    limits: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    min_engines: Count = 1
