"""Payload of a load test: what a client measured at each point of load."""

from hgpu.artifacts.manifest import Strict, Validity
from hgpu.core.slo import Slo

# A row a request: `point` (its number), `intended_s`, `sent_s`, `first_s`, `end_s` (seconds since the start
# of the point), `input_tokens`, `output_tokens` (as the server counted them), `longest_gap_s` (between two
# of its tokens) and `error` (empty where there is none).
REQUESTS_FILE = "requests.parquet"


class Spread(Strict):
    """Mean and percentiles, in seconds."""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float


class LoadPoint(Strict):
    """One load, sent once. Latencies run from the intended send, `ttft_from_send_s` from the actual one.

    `arrivals` is how requests came: constant, poisson, gamma, closed, ramp or trace; `target_rps` or
    `concurrency` how many. `itl_s` is over the gaps between tokens of all requests. `attainment` is the part
    of all requests that kept each objective (and `all`), `goodput_rps` the rate of those that kept all;
    requests that failed kept none. A point that isn't valid is kept with its reasons, never averaged.
    """

    name: str
    arrivals: str
    target_rps: float | None
    concurrency: int | None
    seed: int
    duration_s: float
    requests: int
    errors: int
    error_kinds: dict[str, int]
    achieved_rps: float
    input_tokens: int
    output_tokens: int
    output_tok_per_s: float
    ttft_s: Spread | None
    ttft_from_send_s: Spread | None
    tpot_s: Spread | None
    itl_s: Spread | None
    e2e_s: Spread | None
    attainment: dict[str, float]
    goodput_rps: float | None
    harness_lag_p50_s: float
    harness_lag_p99_s: float
    validity: Validity


class Selftest(Strict):
    """The generator against the bundled mock server on this machine: what it can send, and what it adds."""

    requests_per_s_and_core: float
    added_ttft_p50_s: float
    added_ttft_p99_s: float
    machine: str


class SearchAnswer(Strict):
    """The highest rate that kept the objectives, 0 where none did, and the lowest that didn't, in requests/s.

    At `undecided_rps` too few requests were sent to tell; they count as not kept.
    """

    highest_rps: float
    failed_rps: float | None
    undecided_rps: list[float]


class LoadPayload(Strict):
    """Points of load on one server. `comparability` is what must be the same for two of them to be compared.

    Its keys: gpu, gpu_count, driver, engine, engine_args, model, model_revision, dtype, api, workload (a
    digest of lengths, arrivals, seeds and points); empty where unknown. `search` is there where a search
    chose the points.
    """

    url: str
    api: str
    model: str
    lengths: str
    slo: Slo | None
    points: list[LoadPoint]
    selftest: Selftest | None
    comparability: dict[str, str]
    search: SearchAnswer | None = None
