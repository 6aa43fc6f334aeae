"""The simulation against vLLM's own scheduler: no engine runs, its steps take what a step model says."""

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hgpu.core.operating_point import EngineOptions
from hgpu.core.phases import PhaseOptions, Phases
from hgpu.core.provenance import Provenance
from hgpu.core.step import LatencyModel, StepBatch, StepModel
from hgpu.runtime.tiny_model import make_tiny_model
from hgpu.runtime.vllm.options import scheduler_args
from hgpu.simulator.arrivals import Arrivals, ClosedLoop, FixedCosts, feed_of
from hgpu.simulator.engine import simulate
from hgpu.workloads.trace import ordered_trace

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]

CONTEXT = 4096
Case = tuple[LatencyModel, EngineOptions, Arrivals, int]


def cases(seed: int, count: int) -> Iterator[Case]:
    draw = random.Random(seed)
    for _ in range(count):
        requests = draw.randint(1, 25)
        inputs = np.array([draw.randint(1, draw.choice([8, 40, 200])) for _ in range(requests)])
        outputs = np.array([draw.randint(1, draw.choice([4, 40, 120])) for _ in range(requests)])
        block_tokens = draw.choice([2, 4, 16])
        longest = -(-int((inputs + outputs).max()) // block_tokens)
        capacity = block_tokens * (longest + draw.choice([0, 1, 3, 10, 40, 1000]))
        seqs = draw.randint(1, 12)
        engine = EngineOptions(max(seqs, draw.choice([8, 16, 64, 256])), seqs, CONTEXT)
        step = StepModel(draw.choice([1.0, 0.013]), 0.0071, 1e-5, 1e-4, 1e-3, 20.0, 4.0)
        latency = LatencyModel(step, capacity, 0, 0, 0, Provenance.FITTED)
        times = np.cumsum([draw.choice([0.0, 0.0, 0.1, 3.3, 20.0]) for _ in range(requests)])
        loop = ClosedLoop(draw.randint(1, 12), inputs, outputs)
        trace = ordered_trace("t", times, inputs, outputs, "test")
        yield latency, engine, draw.choice([loop, trace]), block_tokens


class VllmPlay:
    """Hands requests to a vLLM scheduler and takes its steps, with tokens that mean nothing."""

    def __init__(
        self, folder: Path, case: Case, prefix_caching: bool = False, phases: Phases | None = None
    ) -> None:
        self.latency, engine, self.arrivals, block_tokens = case
        kv_tokens = self.latency.kv_capacity_tokens
        self.scheduler = make_scheduler(folder, engine, kv_tokens, block_tokens, prefix_caching, phases)
        requests = len(self.arrivals.input_tokens)
        self.token_s: list[list[float]] = [[] for _ in range(requests)]
        self.preemptions = [0] * requests
        self.caught_up: set[str] = set()
        self.now_s, self.steps = 0.0, 0

    def play(self) -> "VllmPlay":
        feed = self.feed = feed_of(self.arrivals, FixedCosts())
        while feed.next_s < math.inf or self.scheduler.requests:
            for number in feed.take(self.now_s):
                self.add(number)
            if not self.scheduler.requests:
                self.now_s = feed.next_s
                continue
            for _ in range(self.step()):
                feed.ended(self.now_s)
        return self

    def add(self, number: int) -> None:
        from vllm import SamplingParams
        from vllm.v1.request import Request

        prompt = [5] * int(self.arrivals.input_tokens[number])
        params = SamplingParams(max_tokens=int(self.arrivals.output_tokens[number]), ignore_eos=True)
        arrival_s = self.feed.arrival_s[number]
        self.scheduler.add_request(Request(str(number), prompt, params, None, arrival_time=arrival_s))

    def sampled(self, number: int) -> int:
        return 7

    def step(self) -> int:
        """Take a step and return how many requests it ended."""
        from vllm.v1.outputs import ModelRunnerOutput

        output = self.scheduler.schedule()
        for name in output.preempted_req_ids or ():
            self.preemptions[int(name)] += 1
            self.caught_up.discard(name)
        scheduled: dict[str, int] = output.num_scheduled_tokens
        requests: dict[str, Any] = self.scheduler.requests
        before = {name: requests[name].num_computed_tokens - new for name, new in scheduled.items()}
        ends = [name for name, new in scheduled.items() if before[name] + new == requests[name].num_tokens]
        self.now_s += self.latency.step.step_s(self.batch(scheduled, before))
        self.steps += 1
        self.caught_up.update(ends)
        for name in ends:
            self.token_s[int(name)].append(self.now_s)
        held = len(requests)
        self.scheduler.update_from_output(
            output,
            ModelRunnerOutput(
                req_ids=list(scheduled),
                req_id_to_index={name: index for index, name in enumerate(scheduled)},
                sampled_token_ids=[[self.sampled(int(n))] if n in ends else [] for n in scheduled],
            ),
        )
        return held - len(self.scheduler.requests)

    def batch(self, scheduled: dict[str, int], before: dict[str, int]) -> StepBatch:
        prompts = [(new, before[n]) for n, new in scheduled.items() if n not in self.caught_up]
        contexts = [before[name] + 1 for name in scheduled if name in self.caught_up]
        return StepBatch(
            prefill_tokens=sum(new for new, _ in prompts),
            prefill_seqs=len(prompts),
            prefill_pairs=sum(new * done + new * (new + 1) / 2 for new, done in prompts),
            prefill_context_tokens=sum(done for _, done in prompts),
            decode_seqs=len(contexts),
            decode_context_tokens=sum(contexts),
        )


def make_scheduler(
    folder: Path,
    engine: EngineOptions,
    kv_tokens: int,
    block_tokens: int,
    prefix_caching: bool,
    phases: Phases | None = None,
) -> Any:
    import torch
    from vllm.config import (
        CacheConfig,
        DeviceConfig,
        ModelConfig,
        ParallelConfig,
        SchedulerConfig,
        VllmConfig,
    )
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
    from vllm.v1.structured_output import StructuredOutputManager

    blocks = kv_tokens // block_tokens + 1  # vLLM sets one aside
    cache = CacheConfig(block_size=block_tokens, enable_prefix_caching=prefix_caching)
    cache.num_gpu_blocks = blocks
    config = VllmConfig(
        model_config=ModelConfig(
            model=str(folder), skip_tokenizer_init=True, dtype="float32", max_model_len=CONTEXT
        ),
        scheduler_config=SchedulerConfig(
            max_num_seqs=engine.max_num_seqs,
            max_num_batched_tokens=engine.max_num_batched_tokens,
            max_model_len=CONTEXT,
            enable_chunked_prefill=True,
            is_encoder_decoder=False,
            async_scheduling=False,
        ),
        cache_config=cache,
        parallel_config=ParallelConfig(),
        device_config=DeviceConfig("cpu"),
        additional_config=additional_config(phases) if phases else {},
    )
    spec = FullAttentionSpec(block_size=block_tokens, num_kv_heads=1, head_size=1, dtype=torch.float32)
    kv = KVCacheConfig(blocks, [], [KVCacheGroupSpec(["layer"], spec)])
    kind = Scheduler
    if phases is not None:
        from hgpu.runtime.vllm.phase_scheduler import PhaseScheduler

        kind = PhaseScheduler
    return kind(config, kv, StructuredOutputManager(config), block_size=block_tokens, log_stats=False)


def additional_config(phases: Phases) -> Any:
    """Return what `vllm serve` would read from the arguments that switch the phase scheduler on."""
    return json.loads(scheduler_args(phases, asynchronous=False)[-1])


def test_the_simulation_takes_the_steps_of_vllms_scheduler(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    folder = make_tiny_model(tmp_path / "model", hidden_size=64, layers=1, max_context_tokens=CONTEXT)
    preemptions = 0
    for case in cases(seed=0, count=60):
        latency, engine, arrivals, block_tokens = case
        theirs = VllmPlay(folder, case).play()
        mine = simulate(latency, engine, arrivals, block_tokens=block_tokens)
        assert mine.first_token_s.tolist() == [times[0] for times in theirs.token_s]
        assert mine.end_s.tolist() == [times[-1] for times in theirs.token_s]
        assert mine.preemptions.tolist() == theirs.preemptions
        assert mine.steps == theirs.steps
        preemptions += sum(theirs.preemptions)
    assert preemptions > 20


def test_the_simulation_takes_the_steps_of_the_phase_scheduler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plugin in real vLLM, on the simulation's clock: the same order, budgets and preemptions."""
    pytest.importorskip("vllm")
    from hgpu.runtime.vllm import phase_scheduler

    folder = make_tiny_model(tmp_path / "model", hidden_size=64, layers=1, max_context_tokens=CONTEXT)
    draw = random.Random(1)
    preemptions = differ = 0
    for case in cases(seed=1, count=80):
        latency, engine, arrivals, block_tokens = case
        options = PhaseOptions(
            ageing_tok_per_s=draw.choice([None, 0.25, 1.0, 15.0]),
            tpot_s=draw.choice([None, 0.05, 1.5, 4.0]),
            least_tokens=draw.choice([1, 16]),
        )
        theirs = VllmPlay(folder, case, phases=Phases(options, latency.step))
        clock = SimpleNamespace(monotonic=lambda play=theirs: play.now_s)
        monkeypatch.setattr(phase_scheduler, "time", clock)
        theirs.play()
        mine = simulate(latency, engine, arrivals, block_tokens=block_tokens, phases=options)
        assert mine.first_token_s.tolist() == [times[0] for times in theirs.token_s]
        assert mine.end_s.tolist() == [times[-1] for times in theirs.token_s]
        assert mine.preemptions.tolist() == theirs.preemptions
        assert mine.steps == theirs.steps
        preemptions += sum(theirs.preemptions)
        stock = simulate(latency, engine, arrivals, block_tokens=block_tokens)
        differ += stock.end_s.tolist() != mine.end_s.tolist()
    assert preemptions > 20 and differ > 20
