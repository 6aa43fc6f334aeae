"""Real vLLM whose copies take as long as an expert of Qwen3-30B-A3B takes over PCIe: predicted and measured.

    python benchmarks/experts/throttled.py MODEL [--prompts 24] [--tokens 24]

On a CPU a copy from host to "device" is one within the same memory. Here each expert's copy is drawn out, and
the step waits for it. Engines without a cache, with all experts on demand, with LRU and with pinned LFU at
25 % of the slots live in one process and answer each prompt in turn, one sequence at a time, so that all
share what else the machine does. Predicted: the engine's own time without a cache, and for each load of a
replay of the policy on the routing of that engine, the copy's.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from answering import Routing, engine
from exact import prompts_of
from vllm import SamplingParams

from hgpu.core.experts import ExpertCache, ExpertPolicy
from hgpu.latency.expert_hints import hints_of
from hgpu.latency.expert_replay import Played, replay
from hgpu.latency.hints_file import save_hints
from hgpu.runtime.vllm import expert_store
from hgpu.runtime.vllm.expert_copies import Pair, PlainCopies
from hgpu.runtime.vllm.expert_options import expert_rows

EXPERT_BYTES = 3 * 2048 * 768 * 2  # of Qwen3-30B-A3B in bfloat16
LINKS_BYTES_PER_S = {"PCIe 4": 25e9, "PCIe 5": 50e9}
FRACTION = 0.25
POLICIES = (ExpertPolicy.ON_DEMAND, ExpertPolicy.LRU, ExpertPolicy.PINNED_LFU)
PROMPT_TOKENS = 8


class DrawnOut(PlainCopies):
    """Copies an expert in the time that one of Qwen3-30B-A3B takes over a link."""

    def __init__(self, expert_s: float) -> None:
        super().__init__()
        self._expert_s = expert_s

    def copy(self, pairs: Iterable[Pair]) -> None:
        """Copy, and return when the link would have."""
        began_s, listed = time.perf_counter(), list(pairs)
        super().copy(listed)
        ends_s = began_s + self._expert_s * len(listed) / 2  # an expert is two tensors
        while (left_s := ends_s - time.perf_counter()) > 0:
            time.sleep(left_s / 2 if left_s > 2e-4 else 0)  # a sleep may last longer than asked


def main() -> None:
    """Measure on each link, and print."""
    options = _options()
    prompts = [prompt[:PROMPT_TOKENS] for prompt in prompts_of(options.model, options.prompts)]
    asked = SamplingParams(temperature=0, max_tokens=options.tokens, ignore_eos=True)
    routing = Routing()
    resident = engine(options.model, None)
    with routing.watched(resident.llm_engine.vllm_config):
        for prompt in prompts:
            _seconds(resident, prompt, asked)
    trace = routing.trace()
    hints = hints_of(trace)
    print("| link | policy | tok/s | against on demand | expert loads a step | predicted tok/s | error |")
    print("|---|---|---:|---:|---:|---:|---:|")
    kept = []  # vLLM takes the process's groups down with the first engine that goes
    for link, bytes_per_s in LINKS_BYTES_PER_S.items():
        expert_s = EXPERT_BYTES / bytes_per_s
        expert_store.copies_for = lambda device, expert_s=expert_s: DrawnOut(expert_s)
        with tempfile.TemporaryDirectory() as folder:
            path = save_hints(hints, Path(folder) / "hints.npz")
            caches = [ExpertCache(FRACTION, policy, wide=False) for policy in POLICIES]
            engines = {one.policy: engine(options.model, expert_rows(one, path)) for one in caches}
        kept.append(engines)
        slots = caches[0].slots(trace.experts, trace.per_token)
        played = {one: replay(trace, slots, one, hints) for one in POLICIES}
        _measure(link, expert_s, resident, engines, played, prompts, asked)


def _measure(
    link: str,
    expert_s: float,
    resident: Any,
    engines: dict[ExpertPolicy, Any],
    played: dict[ExpertPolicy, Played],
    prompts: list[list[int]],
    asked: SamplingParams,
) -> None:
    tokens = asked.max_tokens * len(prompts)
    spent_s: dict[ExpertPolicy, list[float]] = {policy: [] for policy in engines}
    own_s = []
    for prompt in prompts:
        own_s.append(_seconds(resident, prompt, asked))
        for policy, one in engines.items():
            spent_s[policy].append(_seconds(one, prompt, asked))
    print(f"| {link} | all resident | {tokens / sum(own_s):.1f} | | | | |")
    for policy, seconds in spent_s.items():
        loads = int(played[policy].misses.sum())
        predicted_s = sum(own_s) + loads * expert_s
        on_demand = zip(spent_s[ExpertPolicy.ON_DEMAND], seconds, strict=True)
        cells = [
            link,
            str(policy),
            f"{tokens / sum(seconds):.1f}",
            f"{statistics.median(base / mine for base, mine in on_demand):.2f}x",
            f"{loads / len(played[policy].misses):.2f}",
            f"{tokens / predicted_s:.1f}",
            f"{predicted_s / sum(seconds) - 1:+.1%}",
        ]
        print(f"| {' | '.join(cells)} |", flush=True)


def _seconds(llm: Any, prompt: list[int], asked: SamplingParams) -> float:
    began_s = time.perf_counter()
    llm.generate([{"prompt_token_ids": prompt}], asked, use_tqdm=False)
    return time.perf_counter() - began_s


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--tokens", type=int, default=24)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
