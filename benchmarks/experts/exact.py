"""Holds vLLM with an expert cache to vLLM without: tokens, log-probabilities, counters, bytes.

    python benchmarks/experts/exact.py MODEL [--prompts 100] [--tokens 32] [--batches 1,2,4,8,16]

MODEL is a folder that train.py wrote. One engine an arm answers the same prompts greedily under each batch
limit. Every log-probability has to be the same bits, and the counters have to be those that a replay of the
policy gives on the routing of the engine without a cache. Exits with 1 where anything differs.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from answering import Answers, Routing, answered
from corpus import texts
from tokenizers import Tokenizer

from hgpu.core.experts import ExpertCache, ExpertPolicy, Prefetch
from hgpu.latency.expert_hints import ExpertHints, hints_of
from hgpu.latency.expert_replay import replay
from hgpu.latency.hints_file import save_hints
from hgpu.latency.routing import RoutingTrace
from hgpu.runtime.vllm.expert_options import expert_rows

COMPARED = ("hits", "misses", "prefetched", "prefetch_hits", "groups", "wide_groups")
FRACTIONS = (0.125, 0.25, 0.5)
SHORTEST_TOKENS, LONGEST_TOKENS = 8, 160


def arms(every: bool) -> list[ExpertCache]:
    """Return the caches to hold to the engine without: each fraction, and at a quarter each policy."""
    found = [ExpertCache(fraction, wide=False) for fraction in FRACTIONS]
    if every:
        found += [ExpertCache(0.25, policy, wide=False) for policy in ExpertPolicy if policy != "pinned_lfu"]
        found += [ExpertCache(0.25, prefetch=one, wide=False) for one in Prefetch if one != "none"]
        return [*found, ExpertCache(0.25)]
    return [
        ExpertCache(0.125, ExpertPolicy.LRU, wide=False),
        ExpertCache(0.25, prefetch=Prefetch.TOKEN),
        ExpertCache(0.5, prefetch=Prefetch.NEXT_GATE, wide=False),
    ]


def main() -> int:
    """Answer, compare, print; return the exit status."""
    options = _options()
    prompts = prompts_of(options.model, options.prompts)
    lengths = [1 + options.tokens * (1 + n % 4) // 4 for n in range(options.prompts)]
    batches = [int(one) for one in options.batches.split(",")]
    routing = Routing()
    stock = answered(options.model, None, prompts, lengths, batches, routing)
    trace = routing.trace()
    hints = hints_of(trace, vocab=int(trace.tokens.max()) + 1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = save_hints(hints, Path(folder) / "hints.npz")
        for cache in arms(not options.short):
            cached = answered(options.model, expert_rows(cache, path), prompts, lengths, batches)
            rows.append(row := compared(cache, stock, cached, trace, hints))
            print(_line(row), file=sys.stderr, flush=True)
    report = {"prompts": len(prompts), "batches": batches, "steps": len(trace.bounds), "arms": rows}
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"| {HEADS} |", RULE, *map(_line, rows), sep="\n")
    return 0 if all(row["exact"] for row in rows) else 1


def prompts_of(model: str, count: int) -> list[list[int]]:
    """Return prompts of many lengths from the held-out files, as token ids."""
    tokenizer = Tokenizer.from_file(str(Path(model) / "tokenizer.json"))
    text = "".join(texts("held-out"))
    ids = tokenizer.encode(text[: 4000 * count]).ids
    spread = LONGEST_TOKENS - SHORTEST_TOKENS
    starts = range(0, len(ids) - LONGEST_TOKENS, max(1, (len(ids) - LONGEST_TOKENS) // count))
    return [ids[s : s + SHORTEST_TOKENS + n * 37 % spread] for n, s in enumerate(starts)][:count]


def compared(
    cache: ExpertCache, stock: Answers, cached: Answers, trace: RoutingTrace, hints: ExpertHints
) -> dict[str, Any]:
    """Return what differs between an engine with a cache and one without, and between it and the replay."""
    slots = cache.slots(trace.experts, trace.per_token)
    played = replay(trace, slots, cache.policy, hints, cache.prefetch, cache.wide)
    expected = asdict(played.total)
    counters = cached.counters
    flat = [
        (a, b)
        for one, other in zip(stock.logprobs, cached.logprobs, strict=True)
        for a, b in zip(one, other, strict=True)
    ]
    same = {
        "tokens": stock.tokens == cached.tokens,
        "logprobs": stock.logprobs == cached.logprobs,
        "counters": all(expected[name] == counters[name] for name in COMPARED),
        "bytes": counters["copied_bytes"] == played.total.loads * cached.expert_bytes,
    }
    return {
        "cache": cache.name + (" wide" if cache.wide else ""),
        "compared_tokens": sum(len(a) for a, _ in flat),
        "same": same,
        "exact": all(same.values()),
        "resident_fraction": counters["resident_bytes"] / counters["host_bytes"],
        "wide_fraction": counters["wide_bytes"] / counters["host_bytes"],
        "recall": counters["predicted"] / counters["predictions"] if counters["predictions"] else None,
        "hit_ratio": played.total.hit_ratio,
        "counters": counters,
        "replayed": expected,
    }


HEADS = (
    "cache | compared | tokens | logprobs | counters | resident | wide | hits | misses | ahead | recall | MB"
)
RULE = "|---|---:|---|---|---|---:|---:|---:|---:|---:|---:|---:|"


def _line(row: dict[str, Any]) -> str:
    counters, same = row["counters"], row["same"]
    said = ["same" if same[name] else "DIFFERENT" for name in ("tokens", "logprobs", "counters")]
    recall = "" if row["recall"] is None else f"{row['recall']:.2f}"
    wide = f"{row['wide_fraction']:.1%}" if row["wide_fraction"] else ""
    cells = [
        row["cache"],
        f"{row['compared_tokens']:,}",
        *said,
        f"−{1 - row['resident_fraction']:.1%}",
        wide,
        *(f"{counters[name]:,}" for name in ("hits", "misses", "prefetched")),
        recall,
        f"{counters['copied_bytes'] / 1e6:,.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument(
        "--tokens", type=int, default=32, help="the longest answer; others have a quarter of it or more"
    )
    parser.add_argument("--batches", default="1,2,4,8,16", help="at most so many sequences in a step")
    parser.add_argument("--short", action="store_true", help="three caches only")
    parser.add_argument("--json", type=Path, help="write everything to a file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
