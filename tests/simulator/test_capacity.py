import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hgpu.artifacts.memo import Memo
from hgpu.artifacts.resolve import entries
from hgpu.core.errors import InputError
from hgpu.core.operating_point import EngineOptions
from hgpu.core.provenance import Provenance
from hgpu.core.slo import Objective, Slo
from hgpu.core.step import LatencyModel, StepModel
from hgpu.core.workload import Bucket
from hgpu.latency.capacity import Capacity, capacities
from hgpu.simulator import capacity as module
from hgpu.simulator.arrivals import ClosedLoop
from hgpu.simulator.capacity import RefineOptions, refined, refined_all, unit_trace
from hgpu.simulator.engine import simulate
from hgpu.simulator.result import EngineRun
from hgpu.simulator.verdict import Window, allowed_misses, failure, saturated_rps
from hgpu.workloads.replay import poisson_trace

ENGINE = EngineOptions(max_num_batched_tokens=512, max_num_seqs=32, max_model_len=2048)
STEP = StepModel(2e-3, 15e-3, 4e-9, 1e-7, 2e-5, knee_tokens=200.0, sharpness=4.0)
LATENCY = LatencyModel(STEP, 40_000, 0.0, 0.0, 0.0, Provenance.FITTED)
SLO = Slo(ttft=Objective(0.1, 90.0), tpot=Objective(0.022, 90.0))
QUICK = RefineOptions(relative_width=0.05, requests=400)
CHAT = Bucket(100, 250, 25, 100, 170.0, 60.0, 1.0, 330)
SHORT = Bucket(0, 25, 0, 25, 12.0, 10.0, 1.0, 48)


def start(
    bucket: Bucket = CHAT, slo: Slo = SLO, latency: LatencyModel = LATENCY, engine: EngineOptions = ENGINE
) -> Capacity:
    return capacities(latency, engine, (bucket,), slo)[0]


def rate(bucket: Bucket = CHAT, slo: Slo = SLO, latency: LatencyModel = LATENCY, seed: int = 0) -> float:
    options = replace(QUICK, seed=seed)
    return refined(latency, ENGINE, bucket, slo, start(bucket, slo, latency), options).rate_rps


def slower(factor: float) -> LatencyModel:
    step = replace(
        STEP,
        overhead_s=STEP.overhead_s * factor,
        linear_s=STEP.linear_s * factor,
        pair_s=STEP.pair_s * factor,
        kv_s=STEP.kv_s * factor,
        seq_s=STEP.seq_s * factor,
    )
    return replace(LATENCY, step=step)


def keeps(bucket: Bucket, slo: Slo, rate_rps: float) -> bool:
    """Judge a rate by what the objectives say, on a trace made for that rate."""
    trace = poisson_trace(module.Workload("b", 1.0, (bucket,), 1, "test"), rate_rps, requests=1400)
    most = (bucket.max_total_tokens - trace.input_tokens).clip(1)
    arrivals_s = trace.arrivals_s * trace.rate_rps / rate_rps
    outputs = trace.output_tokens.clip(max=most)
    run = simulate(LATENCY, ENGINE, replace(trace, arrivals_s=arrivals_s, output_tokens=outputs))
    tokens = run.output_tokens[500:900] - 1
    ttft_s = (run.first_token_s - run.arrival_s)[500:900]
    tpot_s = (run.end_s - run.first_token_s)[500:900][tokens > 0] / tokens[tokens > 0]
    assert slo.ttft and slo.tpot
    return bool(
        (ttft_s > slo.ttft.limit_s).sum() <= allowed_misses(400, 90.0)
        and (tpot_s > slo.tpot.limit_s).sum() <= allowed_misses(len(tpot_s), 90.0)
    )


@pytest.mark.parametrize("bucket", [CHAT, SHORT], ids=["chat", "short"])
def test_brute_force_on_a_coarse_grid_finds_the_same(bucket: Bucket) -> None:
    found = rate(bucket)
    grid = found * 1.05 ** np.arange(-12, 13)
    verdicts = [keeps(bucket, SLO, rate_rps) for rate_rps in grid]
    assert verdicts == [True] * 13 + [False] * 12


def test_the_answer_is_the_same_again_and_from_any_start() -> None:
    near = start()
    again = {rate() for _ in range(2)}
    far = {
        refined(LATENCY, ENGINE, CHAT, SLO, replace(near, rate_rps=near.rate_rps * factor), QUICK).rate_rps
        for factor in (0.01, 0.7, 1.0, 1.4, 30.0)
    }
    assert again == far
    assert len(far) == 1 and far.pop() > 0


def test_only_the_neighbourhood_of_the_start_is_simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def counted(latency: LatencyModel, engine: EngineOptions, trace: module.Trace, phases: None) -> object:
        if trace.duration_s:  # else it is the saturated run
            asked.append(trace.rate_rps)
        return simulate(latency, engine, trace, phases=phases)

    near = replace(start(), rate_rps=rate())
    monkeypatch.setattr(module, "simulate", counted)
    assert refined(LATENCY, ENGINE, CHAT, SLO, near, QUICK).rate_rps == pytest.approx(near.rate_rps)
    assert len(asked) <= 5
    assert max(asked) < 1.4 * min(asked)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bucket", [CHAT, SHORT], ids=["chat", "short"])
def test_looser_objectives_never_lower_it_and_slower_engines_never_raise_it(
    bucket: Bucket, seed: int
) -> None:
    loose = Slo(ttft=Objective(0.5, 90.0), tpot=Objective(0.040, 90.0))
    looser = Slo(ttft=Objective(0.5, 50.0), tpot=Objective(0.040, 50.0))
    rates = [rate(bucket, slo, seed=seed) for slo in (SLO, loose, looser)]
    assert rates == sorted(rates) and rates[0] < rates[-1]
    speeds = [rate(bucket, loose, slower(factor), seed) for factor in (1.0, 1.2, 1.5)]
    assert speeds == sorted(speeds, reverse=True) and speeds[0] > speeds[-1] > 0


def test_a_queue_that_grows_is_no_capacity_even_where_no_objective_sees_it() -> None:
    """At most 32 run at once, so TPOT stays low however many wait."""
    only_tpot = Slo(tpot=Objective(0.2, 90.0))
    found = rate(slo=only_tpot)
    trace, window = unit_trace(CHAT, 1400, 0), Window(500, 900)

    def run_at(rate_rps: float) -> EngineRun:
        return simulate(LATENCY, ENGINE, replace(trace, arrivals_s=trace.arrivals_s / rate_rps))

    assert not failure(run_at(1.5 * found), only_tpot, window)
    waits_s = [[run_at(factor * found).queue_s[n] for n in (200, 1399)] for factor in (0.8, 1.2)]
    assert waits_s[0][1] < 0.5 < 2 < waits_s[1][1] - waits_s[1][0]


def test_an_engine_is_saturated_at_as_many_as_its_steps_yield() -> None:
    """Four at once, prompt and 9 more tokens in ten steps of a second: 0.4 requests/s."""
    unit = replace(LATENCY, step=StepModel(1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0))
    engine = EngineOptions(max_num_batched_tokens=512, max_num_seqs=4, max_model_len=2048)
    four = ClosedLoop(100, np.full(100, 5), np.full(100, 10))
    assert saturated_rps(simulate(unit, engine, four), Window(20, 80)) == pytest.approx(0.4)


def test_what_is_refused_exactly_stays_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_run(*_: object, **__: object) -> None:
        raise AssertionError("there is nothing to simulate")

    monkeypatch.setattr(module, "simulate", no_run)
    long = Bucket(1000, 2000, 100, 250, 1900.0, 150.0, 1.0, 2200)
    tiny = replace(LATENCY, kv_capacity_tokens=300)
    for refused in (
        (LATENCY, long, SLO),
        (tiny, CHAT, SLO),
        (LATENCY, CHAT, Slo(tpot=Objective(0.010))),
        (LATENCY, CHAT, Slo(ttft=Objective(0.010))),
        (LATENCY, CHAT, Slo(e2e=Objective(0.1))),
    ):
        latency, bucket, slo = refused
        begin = start(bucket, slo, latency)
        assert begin.rate_rps == 0 and begin.reason
        assert refined(latency, ENGINE, bucket, slo, begin, QUICK) == begin


def test_what_only_the_closed_form_refuses_is_looked_at() -> None:
    doubtful = replace(start(), rate_rps=0.0, reason="a lone request exceeds the engine's KV cache")
    found = refined(LATENCY, ENGINE, CHAT, SLO, doubtful, QUICK)
    assert found.rate_rps == rate() and not found.reason


def test_a_bucket_whose_longer_requests_miss_an_objective_alone_says_so() -> None:
    wide = Bucket(100, 1000, 25, 100, 550.0, 60.0, 1.0, 1100)
    slo = Slo(ttft=Objective(start(wide).lone_ttft_s * 1.1, 90.0))
    found = refined(LATENCY, ENGINE, wide, slo, start(wide, slo), QUICK)
    assert start(wide, slo).rate_rps > 0 and found.rate_rps == 0
    assert "requests miss TTFT" in found.reason and "1e-05 requests/s in simulation" in found.reason


def test_lengths_stay_within_the_longest_member() -> None:
    trace = unit_trace(replace(CHAT, max_total_tokens=280), 2000, 0)
    assert (trace.input_tokens + trace.output_tokens).max() == 280
    cache = replace(LATENCY, kv_capacity_tokens=300)
    unknown = replace(CHAT, max_total_tokens=0)
    found = refined(cache, ENGINE, unknown, SLO, start(), QUICK)
    assert found.rate_rps == 0 and "don't fit the KV cache" in found.reason


def test_chance_decides_less_often_than_one_in_twenty() -> None:
    """Of services that miss the objective by a hair, under 5 % pass; allowing one more is over that."""
    from scipy.stats import binom

    for requests, percentile in ((4000, 99.0), (400, 90.0), (4000, 50.0)):
        allowed, share = allowed_misses(requests, percentile), 1 - percentile / 100
        assert binom.cdf(allowed, requests, share) < 0.05 <= binom.cdf(allowed + 1, requests, share)
    assert allowed_misses(4000, 99.0) == 29
    assert allowed_misses(20, 99.0) == 0


def test_rarer_misses_need_more_requests() -> None:
    options = RefineOptions()
    assert options.judged(Slo()) == options.judged(Slo(ttft=Objective(1.0, 99.0))) == 4000
    assert options.judged(Slo(ttft=Objective(1.0, 90.0), e2e=Objective(9.0, 99.9))) == 40_000
    with pytest.raises(InputError, match="100 % of requests"):
        options.judged(Slo(ttft=Objective(1.0, 100.0)))
    for bad in ({"relative_width": 0.0}, {"requests": 10}, {"seed": -1}):
        with pytest.raises(InputError, match="bad search"):
            RefineOptions(**bad)


def all_of(folder: Path, options: RefineOptions = QUICK, slo: Slo = SLO) -> list[Capacity]:
    pairs = [(CHAT, start(slo=slo)), (SHORT, start(SHORT, slo))]
    told: list[tuple[int, int, str]] = []
    memo = Memo(folder.joinpath(*module.MEMO))
    found = refined_all(LATENCY, ENGINE, pairs, slo, memo, lambda *row: told.append(row), options)
    assert told == [(1, 2, "capacities"), (2, 2, "capacities")]
    return found


def test_the_memo_answers_without_simulating(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = all_of(tmp_path)
    assert [row.rate_rps for row in fresh] == [rate(CHAT), rate(SHORT)]
    assert not entries(tmp_path)  # no artifact, so `hgpu list` doesn't see it

    def no_run(*_: object, **__: object) -> None:
        raise AssertionError("simulated again")

    monkeypatch.setattr(module, "simulate", no_run)
    assert all_of(tmp_path) == fresh
    for options, slo in (
        (replace(QUICK, seed=1), SLO),
        (QUICK, replace(SLO, ttft=Objective(0.11, 90.0))),
    ):
        with pytest.raises(AssertionError, match="simulated again"):
            all_of(tmp_path, options, slo)
    monkeypatch.setattr(module, "METHOD", module.METHOD + 1)
    with pytest.raises(AssertionError, match="simulated again"):
        all_of(tmp_path)


@pytest.mark.parametrize("damage", ["", "{", "[1]", "cut", "edited", "folder"])
def test_a_damaged_memo_is_made_again(tmp_path: Path, damage: str) -> None:
    fresh = all_of(tmp_path)
    files = sorted(tmp_path.joinpath(*module.MEMO).iterdir())
    assert len(files) == 2
    contents = [path.read_bytes() for path in files]
    if damage == "cut":
        files[0].write_bytes(contents[0][:-5])
    elif damage == "edited":
        entry = json.loads(contents[0])
        entry["value"]["rate_rps"] += 1.0
        files[0].write_text(json.dumps(entry))
    elif damage == "folder":
        files[0].write_bytes(contents[1])  # another question's answer
    else:
        files[0].write_text(damage)
    assert all_of(tmp_path) == fresh
    assert [path.read_bytes() for path in files] == contents


def test_writers_at_the_same_time_harm_nobody(tmp_path: Path) -> None:
    memo = Memo(tmp_path / "memo")
    seen: list[object] = []

    def write() -> None:
        for _ in range(50):
            memo.put("d" * 64, {"rate_rps": 1.5})
            seen.append(memo.get("d" * 64))

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [{"rate_rps": 1.5}] * 200
    assert [path.name for path in memo.folder.iterdir()] == ["d" * 64 + ".json"]


def test_a_bucket_with_hardly_any_second_token_is_judged() -> None:
    """TPOT exists for one request in fifty here: too few for p99, so none may miss."""
    ones = Bucket(0, 25, 0, 2, 12.0, 1.02, 1.0, 27)
    slo = Slo(ttft=Objective(0.5), tpot=Objective(0.1))
    trace = unit_trace(ones, 5000, 0)
    assert 50 < (trace.output_tokens > 1).sum() < 150
    assert refined(LATENCY, ENGINE, ones, slo, start(ones, slo)).rate_rps > 0


@pytest.mark.parametrize(("tokens", "outputs"), [(12, 300), (300, 100), (600, 13), (1500, 60)])
def test_the_closed_form_is_not_far_off_where_all_requests_are_alike(tokens: int, outputs: int) -> None:
    engine = EngineOptions()
    bucket = Bucket(tokens - 1, tokens, outputs - 1, outputs, tokens, outputs, 1.0, tokens + outputs)
    slo = Slo(ttft=Objective(2.0), tpot=Objective(0.06))
    closed = start(bucket, slo, engine=engine)
    assert 0.75 < closed.rate_rps / refined(LATENCY, engine, bucket, slo, closed).rate_rps < 1.35
