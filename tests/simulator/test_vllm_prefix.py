"""Prefix caching against vLLM's own scheduler, with tokens that realise the prefixes of a trace."""

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from simulator.prefix_tokens import drawn_prompt, own_token, prompt_tokens, shared_trace
from simulator.test_vllm_scheduler import CONTEXT, Case, VllmPlay

from hgpu.core.operating_point import EngineOptions
from hgpu.core.provenance import Provenance
from hgpu.core.step import LatencyModel, StepModel
from hgpu.runtime.tiny_model import make_tiny_model
from hgpu.simulator.engine import simulate
from hgpu.workloads.trace import Trace

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]


def cases(seed: int, count: int) -> Iterator[Case]:
    draw = random.Random(seed)
    for _ in range(count):
        requests = draw.randint(2, 30)
        block_tokens = draw.choice([2, 4, 16])
        size = draw.choice([1, 2, 3, 4, 8]) * block_tokens + draw.choice([0, 0, 1])
        prompts = [drawn_prompt(draw, size, draw.choice([8, 40, 200])) for _ in range(requests)]
        outputs = [draw.randint(1, draw.choice([4, 40, 120])) for _ in range(requests)]
        times_s = np.cumsum([draw.choice([0.0, 0.0, 0.1, 3.3, 20.0]) for _ in range(requests)])
        trace = shared_trace(times_s.tolist(), prompts, outputs, size)
        longest = -(-int((trace.input_tokens + trace.output_tokens).max()) // block_tokens)
        capacity = block_tokens * (longest + draw.choice([0, 1, 3, 10, 40, 1000]))
        seqs = draw.randint(1, 12)
        engine = EngineOptions(max(seqs, draw.choice([8, 16, 64, 256])), seqs, CONTEXT)
        step = StepModel(draw.choice([1.0, 0.013]), 0.0071, 1e-5, 1e-4, 1e-3, 20.0, 4.0)
        yield LatencyModel(step, capacity, 0, 0, 0, Provenance.FITTED), engine, trace, block_tokens


class CachingPlay(VllmPlay):
    """A play in which a prompt has the tokens of its prefix blocks, and every other token is used once."""

    def __init__(self, folder: Path, case: Case) -> None:
        from vllm.utils.hashing import sha256
        from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash

        super().__init__(folder, case, prefix_caching=True)
        init_none_hash(sha256)
        self.hasher = get_request_block_hasher(case[3], sha256)
        self.hits: dict[int, int] = {}

    def add(self, number: int) -> None:
        from vllm import SamplingParams
        from vllm.v1.request import Request

        assert isinstance(self.arrivals, Trace)
        params = SamplingParams(max_tokens=int(self.arrivals.output_tokens[number]), ignore_eos=True)
        prompt = prompt_tokens(self.arrivals, number)
        self.scheduler.add_request(
            Request(str(number), prompt, params, None, arrival_time=float(number), block_hasher=self.hasher)
        )

    def sampled(self, number: int) -> int:
        return own_token(number, int(self.scheduler.requests[str(number)].num_tokens))

    def step(self) -> int:
        schedule = self.scheduler.schedule

        def noting() -> object:
            output = schedule()
            for new in output.scheduled_new_reqs:
                self.hits[int(new.req_id)] = new.num_computed_tokens
            return output

        self.scheduler.schedule = noting
        ended = super().step()
        self.scheduler.schedule = schedule
        return ended


def test_prefix_caching_takes_the_steps_of_vllms_scheduler(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    folder = make_tiny_model(tmp_path / "model", hidden_size=64, layers=1, max_context_tokens=CONTEXT)
    preemptions = hit_tokens = 0
    for case in cases(seed=0, count=100):
        latency, engine, trace, block_tokens = case
        theirs = CachingPlay(folder, case).play()
        mine = simulate(latency, engine, trace, block_tokens=block_tokens, prefix_caching=True)
        assert mine.hit_tokens.tolist() == [theirs.hits[number] for number in range(len(theirs.hits))]
        assert mine.first_token_s.tolist() == [times[0] for times in theirs.token_s]
        assert mine.end_s.tolist() == [times[-1] for times in theirs.token_s]
        assert mine.preemptions.tolist() == theirs.preemptions
        assert mine.steps == theirs.steps
        preemptions += sum(theirs.preemptions)
        hit_tokens += int(mine.hit_tokens.sum())
    assert preemptions > 50 and hit_tokens > 5000
