"""Real vLLM whose copies take as long as an expert of Qwen3-30B-A3B takes over PCIe: predicted and measured.

    python benchmarks/experts/throttled.py MODEL [--prompts 24] [--tokens 24]

On a CPU a copy from host to "device" is one within the same memory. Here each expert's copy is drawn out, and
the step waits for it. Engines with all experts on demand, with LRU and with pinned LFU at 25 % of the slots,
each on every link and on one that takes no time, live in one process and answer each prompt in turn, one
sequence at a time, so that all share what else the machine does. Predicted: what the same engine takes on the
link that takes no time, and for each load of a replay of the policy, on the routing of an engine without a
cache, the copy's time.
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
FREE = "no time"
LINKS_BYTES_PER_S = {FREE: float("inf"), "PCIe 5": 50e9, "PCIe 4": 25e9}
FRACTION = 0.25
POLICIES = (ExpertPolicy.ON_DEMAND, ExpertPolicy.LRU, ExpertPolicy.PINNED_LFU)
PROMPT_TOKENS = 8
SLEEP_OVER_S = 1e-4  # a sleep lasts longer than it is asked for


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
        time.sleep(max(0.0, ends_s - time.perf_counter() - SLEEP_OVER_S))
        while time.perf_counter() < ends_s:
            pass


def main() -> None:
    """Measure, and print."""
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
    engines: dict[tuple[str, ExpertPolicy], Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = save_hints(hints, Path(folder) / "hints.npz")
        for link, bytes_per_s in LINKS_BYTES_PER_S.items():
            expert_store.copies_for = lambda device, rate=bytes_per_s: DrawnOut(EXPERT_BYTES / rate)
            for policy in POLICIES:
                rows = expert_rows(ExpertCache(FRACTION, policy, wide=False), path)
                engines[link, policy] = engine(options.model, rows)
    seconds: dict[tuple[str, ExpertPolicy], list[float]] = {arm: [] for arm in engines}
    for prompt in prompts:
        for arm, one in engines.items():
            seconds[arm].append(_seconds(one, prompt, asked))
    slots = ExpertCache(FRACTION).slots(trace.experts, trace.per_token)
    played = {policy: replay(trace, slots, policy, hints) for policy in POLICIES}
    _print(seconds, played, options.tokens * len(prompts))


def _print(
    seconds: dict[tuple[str, ExpertPolicy], list[float]], played: dict[ExpertPolicy, Played], tokens: int
) -> None:
    print("| link | policy | loads a step | MB a token | tok/s | against on demand | predicted | error |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for (link, policy), each_s in seconds.items():
        misses = played[policy].misses
        predicted_s = sum(seconds[FREE, policy]) + int(misses.sum()) * EXPERT_BYTES / LINKS_BYTES_PER_S[link]
        on_demand = zip(seconds[link, ExpertPolicy.ON_DEMAND], each_s, strict=True)
        cells = [
            link,
            str(policy),
            f"{misses.sum() / len(misses):.2f}",
            f"{misses.sum() * EXPERT_BYTES / tokens / 1e6:.0f}",
            f"{tokens / sum(each_s):.1f}",
            f"{statistics.median(base / mine for base, mine in on_demand):.2f}",
            "" if link == FREE else f"{tokens / predicted_s:.1f}",
            "" if link == FREE else f"{predicted_s / sum(each_s) - 1:+.1%}",
        ]
        print(f"| {' | '.join(cells)} |")


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
