"""What each policy of an expert cache hits and copies, replayed on recorded traces: the tables of the README.

    python benchmarks/experts/traces.py MODEL FOLDER        # where vLLM is installed
    python benchmarks/experts/policies.py FOLDER [--csv FILE]

The replay is the code that the engine plugin runs (`hgpu/latency/expert_policy.py`). Pinned experts and token
tables are learnt from the profile's trace, and judged on the others: on the decodes that were sampled, and on
the prompts' own text as if it had been decoded (`text`).
"""

import argparse
import csv
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hgpu.core.experts import ExpertCache, ExpertPolicy, Prefetch
from hgpu.latency.expert_hints import ExpertHints, hints_of, recall
from hgpu.latency.expert_policy import Counts
from hgpu.latency.expert_replay import replay, replay_belady
from hgpu.latency.routing import RoutingTrace
from hgpu.latency.routing_artifact import distinct_experts, trace_from
from hgpu.profilers.routing_record import RoutingRecord, from_npz
from hgpu.runtime.tiny_model import VOCABULARY

EXPERTS = 32
FRACTIONS = (0.125, 0.25, 0.5)
BATCHES = (1, 4, 16, 32)
SPILLS = (("wide", "kept"), ("wide", "groups", "kept"))  # shown at one sequence, and at more
TEXT_TOKENS = 64  # of each prompt
ON_DEMAND, FULL_LAYER, LRU, PINNED, BELADY = (
    "on demand",
    "full-layer prefetch",
    "LRU",
    "pinned + LFU",
    "Belady (knows the future)",
)
POLICIES = {
    ON_DEMAND: (ExpertPolicy.ON_DEMAND, Prefetch.NONE),
    "static": (ExpertPolicy.STATIC, Prefetch.NONE),
    LRU: (ExpertPolicy.LRU, Prefetch.NONE),
    "LFU": (ExpertPolicy.LFU, Prefetch.NONE),
    PINNED: (ExpertPolicy.PINNED_LFU, Prefetch.NONE),
    "pinned + LFU, token table": (ExpertPolicy.PINNED_LFU, Prefetch.TOKEN),
    "pinned + LFU, next gate": (ExpertPolicy.PINNED_LFU, Prefetch.NEXT_GATE),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One policy on one trace. Loads are summed over layers; `ahead` were made before they were needed.

    `spill` is what a step does that needs more experts than fit: a `wide` buffer, or `groups` of tokens;
    `kept` is a wide buffer from which the slots are filled after the step, which hgpu doesn't do.
    """

    trace: str
    batch: int
    fraction: float
    spill: str
    policy: str
    hit_ratio: float
    loads_per_step: float
    ahead_per_step: float
    loads_per_token: float


def main() -> None:
    """Replay everything and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--csv", type=Path, help="write every row there")
    parser.add_argument("--expert-bytes", type=int, default=49_152)
    options = parser.parse_args()
    hints = hints_of(trace_from(_read(options.folder / "profile.npz"), EXPERTS), VOCABULARY)
    traces = {("sampled", batch): _sampled(options.folder, batch) for batch in BATCHES}
    traces |= {("text", batch): _as_decoded(_read(options.folder / "test-1.npz"), batch) for batch in (1, 4)}
    _print_traces(traces, hints)
    rows = [row for (name, batch), trace in traces.items() for row in _rows(name, batch, trace, hints)]
    for batch in BATCHES:
        _print_policies([row for row in rows if (row.trace, row.batch) == ("sampled", batch)], batch)
    _print_headline([row for row in rows if row.trace == "sampled"], options.expert_bytes)
    if options.csv:
        with options.csv.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(asdict(rows[0])))
            writer.writeheader()
            writer.writerows({name: _rounded(value) for name, value in asdict(row).items()} for row in rows)


def _rounded(value: object) -> object:
    return round(value, 4) if isinstance(value, float) else value


def _read(path: Path) -> RoutingRecord:
    return from_npz(path.read_bytes())


def _sampled(folder: Path, batch: int) -> RoutingTrace:
    trace = trace_from(_read(folder / f"test-{batch}.npz"), EXPERTS)
    return trace.rows(~trace.prefill)


def _as_decoded(record: RoutingRecord, batch: int) -> RoutingTrace:
    """Return the prompts' own text, `batch` prompts at a time, a token of each in every step.

    A token is routed by itself and what came before it, so that it goes where it went in the prompt.
    """
    places = [np.flatnonzero(record.prefill & (record.request == n)) for n in np.unique(record.request)]
    long = [rows[:TEXT_TOKENS] for rows in places if len(rows) >= TEXT_TOKENS]
    groups = [np.stack(long[at : at + batch], axis=1) for at in range(0, len(long) - batch + 1, batch)]
    order = np.concatenate(groups).ravel()
    steps = np.repeat(np.arange(len(order) // batch), batch)
    gate = None if record.next_gate is None else record.next_gate[order]
    return RoutingTrace(
        EXPERTS, record.ids[order], steps, record.token[order], np.zeros(len(order), bool), gate
    )


def _rows(name: str, batch: int, trace: RoutingTrace, hints: ExpertHints) -> Iterator[Row]:
    every = float(trace.layers * EXPERTS)
    yield Row(name, batch, 1.0, "wide", FULL_LAYER, 1.0, every, every, every / batch)
    for fraction in FRACTIONS:
        slots = ExpertCache(fraction).slots(EXPERTS, trace.per_token)
        for spill in ("wide", "groups"):
            for policy, (keeps, prefetch) in POLICIES.items():
                counts = replay(trace, slots, keeps, hints, prefetch, spill == "wide").total
                yield _row(name, batch, fraction, spill, policy, counts, trace)
            counts = replay_belady(trace, slots, spill == "wide").total
            yield _row(name, batch, fraction, spill, BELADY, counts, trace)
        for policy in ("LFU", BELADY):
            counts = _kept(trace, slots, policy == BELADY)
            yield _row(name, batch, fraction, "kept", policy, counts, trace)


def _row(
    name: str, batch: int, fraction: float, spill: str, policy: str, counts: Counts, trace: RoutingTrace
) -> Row:
    steps = len(trace.bounds)
    loads, ahead = counts.loads / steps, counts.prefetched / steps
    return Row(
        name, batch, fraction, spill, policy, counts.hit_ratio, loads, ahead, counts.loads / len(trace.steps)
    )


def _kept(trace: RoutingTrace, slots: int, foresees: bool) -> Counts:
    """Play a cache that loads what a step lacks beside its slots, and then keeps the best of all in them.

    With `foresees` the best are those needed again first, and no cache of so many slots loads less; without,
    they are those that most steps used.
    """
    counts = Counts()
    for layer in range(trace.layers):
        needs = np.zeros((len(trace.bounds), EXPERTS), bool)
        for step, ids in enumerate(trace.each_step(layer)):
            needs[step, ids.ravel()] = True
        resident = np.zeros(EXPERTS, bool)
        keys = _next_uses(needs) if foresees else -np.cumsum(needs, axis=0)
        for step, needed in enumerate(needs):
            counts.needs += int(needed.sum())
            counts.hits += int((needed & resident).sum())
            there = np.flatnonzero(needed | resident)
            resident[:] = False
            resident[there[np.argsort(keys[step, there], kind="stable")[:slots]]] = True
    counts.misses = counts.needs - counts.hits
    return counts


def _next_uses(needs: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return, for each step and expert, the next step after it that needs the expert."""
    following = np.full_like(needs, len(needs), dtype=np.int64)
    for step in range(len(needs) - 2, -1, -1):
        following[step] = np.where(needs[step + 1], step + 1, following[step + 1])
    return following


def _print_traces(traces: dict[tuple[str, int], RoutingTrace], hints: ExpertHints) -> None:
    """Print what the traces hold, and each predictor's recall at 4, layer by layer."""
    print("| trace | batch | tokens | experts a layer and step | token table | next gate | hottest 8 |")
    print("|---|---:|---:|---:|---|---|---|")
    for (name, batch), trace in traces.items():
        assert trace.next_gate is not None
        table = [recall(hints.of_tokens(trace.tokens, n), trace.ids[:, n]) for n in range(trace.layers)]
        gate = [recall(trace.next_gate[:, n], trace.ids[:, n]) for n in range(1, trace.layers)]
        hot = [float(np.isin(trace.ids[:, n], hints.ranking[n, :8]).mean()) for n in range(trace.layers)]
        shown = [" ".join(f"{one:.2f}" for one in each) for each in (table, gate, hot)]
        _print_row([name, str(batch), f"{len(trace.steps):,}", f"{distinct_experts(trace):.1f}", *shown])


def _print_policies(rows: list[Row], batch: int) -> None:
    """Print hit ratios and loads a step of a batch size."""
    columns = [(fraction, spill) for spill in SPILLS[batch > 1] for fraction in FRACTIONS]
    heads = [f"{fraction:.1%} {spill}" for fraction, spill in columns]
    print(f"\nB = {batch}\n\n| policy | {' | '.join(heads)} |\n|---|{'---:|' * len(heads)}")
    for policy in [*POLICIES, BELADY]:
        _print_row([policy, *(_cell(_one(rows, policy, *column)) for column in columns)])


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    ahead = f" ({row.ahead_per_step:.1f} ahead)" if row.ahead_per_step else ""
    return f"{row.hit_ratio:.3f}, {row.loads_per_step:.2f}{ahead}"


def _one(rows: list[Row], policy: str, fraction: float, spill: str = "wide") -> Row | None:
    found = (row for row in rows if (row.policy, row.fraction, row.spill) == (policy, fraction, spill))
    return next(found, None)


def _print_headline(rows: list[Row], expert_bytes: int) -> None:
    """Print what the default copies for a token, and how many times that is what else there is copies."""
    print("\n| batch | cache | kB a token | on demand | LRU | full-layer prefetch | Belady, kept |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for batch in BATCHES:
        mine = [row for row in rows if row.batch == batch]
        for fraction in FRACTIONS:
            row = _one(mine, PINNED, fraction)
            peers = [
                *(_one(mine, name, fraction) for name in (ON_DEMAND, LRU)),
                _one(mine, FULL_LAYER, 1.0),
                _one(mine, BELADY, fraction, "kept"),
            ]
            times = [f"{peer.loads_per_token / row.loads_per_token:.2f}x" for peer in peers]
            _print_row(
                [str(batch), f"{fraction:.1%}", f"{row.loads_per_token * expert_bytes / 1e3:,.0f}", *times]
            )


def _print_row(cells: list[str]) -> None:
    print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
