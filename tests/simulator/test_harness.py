import numpy as np
import pytest

from hgpu.catalog.gpus import resolve_gpu
from hgpu.catalog.models import load_model
from hgpu.core.errors import Infeasible, InputError
from hgpu.core.operating_point import EngineOptions
from hgpu.core.provenance import Provenance
from hgpu.core.step import LatencyModel, StepModel
from hgpu.simulator.answers import Sources, answers
from hgpu.simulator.defaults import default_engine
from hgpu.simulator.harness import Harness, Question
from hgpu.specs.points import AskedPoint, asked_point

UNIT = LatencyModel(StepModel(1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0), 400_000, 0, 0, 0, Provenance.FITTED)
MODEL = load_model("meta-llama/Llama-3.1-8B")


def test_lengths_are_uniform_below_the_nominal() -> None:
    loop = Harness().loop(Question(1000, 100, 64))
    assert loop.requests == 640 and loop.concurrency == 64
    for lengths, low, high in ((loop.input_tokens, 900, 1000), (loop.output_tokens, 80, 100)):
        assert low <= lengths.min() < 1.02 * low and 0.98 * high < lengths.max() <= high
        assert np.mean(lengths) == pytest.approx((low + high) / 2, rel=0.02)
    fixed = Harness(2, input_spread=0.0, output_spread=0.0, drift_tokens=0).loop(Question(7, 3, 4))
    assert fixed.input_tokens.tolist() == [7] * 8 and fixed.output_tokens.tolist() == [3] * 8


@pytest.mark.parametrize(
    ("output_tokens", "spread", "lowest"),
    [(500, 0.0, 484), (50, 0.2, 34), (500, 0.2, 400), (10, 0.0, 1), (1, 0.0, 1)],
)
def test_outputs_reach_16_tokens_below_nominal_but_never_below_one(
    output_tokens: int, spread: float, lowest: int
) -> None:
    loop = Harness(input_spread=0.0, output_spread=spread).loop(Question(700, output_tokens, 200))
    assert (loop.output_tokens.min(), loop.output_tokens.max()) == (lowest, output_tokens)
    assert set(loop.input_tokens.tolist()) == {700}


def test_requests_of_equal_lengths_do_not_stay_in_lockstep() -> None:
    """Six prompts fill a step of 6,144 tokens. Cohorts of six end together and prefill together, each
    prompt as slow as all six; requests that have drifted apart prefill one by one.
    """
    step = StepModel(0.010, 0.010, 0.0, 0.0, 0.0, 100.0, 1.0)
    latency = LatencyModel(step, 400_000, 0, 0, 0, Provenance.FITTED)
    engine = EngineOptions(max_num_batched_tokens=6144, max_num_seqs=64, max_model_len=4096)
    question = Question(1000, 200, 24)
    ttft_s = {
        drift: Harness(20, 0.0, 0.0, drift).figures(latency, engine, question).ttft_s for drift in (0, 16)
    }
    assert ttft_s[16] < 0.7 * ttft_s[0]
    assert Harness(20, 0.0, 0.0).figures(latency, engine, question).ttft_s == ttft_s[16]


def test_figures_of_a_load_that_is_counted_by_hand() -> None:
    """Two in flight, four of 4 tokens in and 3 out, a budget of 4, steps of a second.

    A's prompt ends in step 1, as B waits; in step 2, A decodes and B gets 3 tokens; step 3 ends A and B's
    prompt. So on with C, which arrives at 3, and D, at 5: every prompt but the first takes two steps.
    """
    engine = EngineOptions(max_num_batched_tokens=4, max_num_seqs=2, max_model_len=100)
    figures = Harness(2, 0.0, 0.0, drift_tokens=0).figures(UNIT, engine, Question(4, 3, 2))
    assert figures.tpot_s == 1.0
    assert figures.ttft_s == pytest.approx((1 + 3 + 2 + 2) / 4)
    assert figures.output_tok_per_s == pytest.approx(12 / 9)


def test_fixed_costs_of_requests_are_those_of_the_latency_model_unless_given() -> None:
    engine = EngineOptions(max_num_batched_tokens=4, max_num_seqs=2, max_model_len=100)
    known = LatencyModel(UNIT.step, 1000, 0, 0, 0, Provenance.FITTED, request_s=0.5)
    question = Question(4, 1, 1)
    assert Harness().figures(known, engine, question).ttft_s == pytest.approx(1.5)
    assert Harness(request_s=0.25).figures(known, engine, question).ttft_s == pytest.approx(1.25)


@pytest.mark.parametrize(
    "bad",
    [
        {"requests_per_slot": 0},
        {"input_spread": 1.0},
        {"input_spread": float("nan")},
        {"output_spread": -0.1},
        {"drift_tokens": -1},
        {"seed": -1},
    ],
)
def test_loads_that_make_no_sense_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InputError, match="bad load"):
        Harness(**bad)


@pytest.mark.parametrize(
    ("gpu", "tokens", "seqs"),
    [("B200", 16_384, 1024), ("H100-SXM", 8192, 1024), ("A100-80GB", 2048, 256), ("L4", 2048, 256)],
)
def test_default_options_are_those_of_vllm(gpu: str, tokens: int, seqs: int) -> None:
    engine = default_engine(MODEL, resolve_gpu(gpu), 1, 1000, 4)
    assert engine == EngineOptions(tokens, seqs, 8192)


def test_default_options_make_room_for_the_load() -> None:
    engine = default_engine(MODEL, resolve_gpu("L4"), 1, 9000, 3000)
    assert engine == EngineOptions(4096, 4096, 16_384)
    assert default_engine(MODEL, resolve_gpu("cpu-2core"), 1, 9, 9) == EngineOptions(2048, 128, 8192)
    with pytest.raises(Infeasible, match="131073 tokens"):
        default_engine(MODEL, resolve_gpu("L4"), 1, 131_073, 1)


def test_processes_give_what_one_process_gives(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(tokens: int) -> AskedPoint:
        return asked_point(
            {
                "model": "qwen3-8b", "gpu": "L4", "tp": "1", "dtype": "bf16", "input_tokens": str(tokens),
                "output_tokens": "9", "concurrency": "2",
            }
        )  # fmt: skip

    said: list[str] = []
    asked = [ask(tokens) for tokens in range(100, 120)]

    def figures() -> list[object]:
        sources = Sources(tmp_path, said.append, "roofline")
        return [row.figures for row in answers(asked, sources, Harness(), lambda done, total, what: None)]

    alone = figures()
    monkeypatch.setattr("hgpu.simulator.answers.WORTH_PROCESSES_S", 0.0)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1}, raising=False)
    assert figures() == alone and None not in alone
    assert len(said) == 2  # one operating point: looked up, and told, once a call
