"""An engine whose prompts and decodes run side by side, each on a share of one device.

Two lanes over one KV cache, as in Nexus (arXiv 2507.06608) or with two streams of green contexts. The prompt
lane computes steps of `max_num_batched_tokens` prompt tokens, the decode lane a token of every request that
decodes; neither waits for the other. A request moves to the decode lane when its prompt is computed, with
that lane's next step. Each lane has the step model of its share, also while the other one is idle: shares are
static. Memory bandwidth isn't shared out, so a decode step passes `contention` times as slowly while a
prompt step runs beside it.

Admission, chunks and preemption are those of the mixed engine (`hgpu.simulator.engine`), but for two things
that follow from the lanes: a prompt step that runs can't be preempted, so a decode without a block then takes
one of the decodes; and a step that preempts doesn't keep the other lane from admitting.
"""

from dataclasses import dataclass, replace
from math import inf

from hgpu.core.errors import InputError
from hgpu.core.operating_point import EngineOptions
from hgpu.core.phases import PhaseOptions
from hgpu.core.step import LatencyModel, StepBatch, StepModel
from hgpu.simulator.arrivals import Arrivals, Feed, FixedCosts, feed_of, lengths_of
from hgpu.simulator.engine import BLOCK_TOKENS, Engine, batch_of
from hgpu.simulator.limits import check_lengths
from hgpu.simulator.result import EngineRun


@dataclass(frozen=True, slots=True)
class Partition:
    """The step models of a device's two shares.

    Beside a prompt step, a decode step takes `contention` times as long.
    """

    prefill: StepModel
    decode: StepModel
    contention: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a neighbour that would speed decodes up."""
        if not 1 <= self.contention < inf:
            raise InputError(f"bad contention {self.contention}", "it must be 1 or more, and finite")


def simulate_partitioned(
    latency: LatencyModel,
    partition: Partition,
    engine: EngineOptions,
    arrivals: Arrivals,
    costs: FixedCosts | None = None,
    block_tokens: int = BLOCK_TOKENS,
    phases: PhaseOptions | None = None,
) -> EngineRun:
    """Return what a partitioned engine makes of the requests of a trace or of a closed loop.

    `latency` is the whole device's: its cache is what both lanes share, and its step model isn't used. Of
    `phases` only the order of prompts applies. `steps` and `mean_batch` of the run count the steps of both
    lanes. Raises InputError as `simulate`, and for a TPOT objective, which would have no step to budget.
    """
    inputs, outputs = lengths_of(arrivals)
    costs = costs or FixedCosts(request_s=latency.request_s)
    feed = feed_of(arrivals, costs)
    alone = PartitionedEngine(latency, partition, engine, costs, block_tokens, feed, phases)
    check_lengths(inputs, outputs, engine, alone.kv.total, block_tokens)
    alone.expect(inputs.tolist(), outputs.tolist())
    alone.advance(inf)
    return alone.run()


class PartitionedEngine(Engine):
    """The state of both lanes. `done_steps` counts the decode steps that began.

    `chunks` are the prompts of the step that runs, until `prompt_end_s`; `decode_left_s` is what a decode
    step that runs would take from now on without a neighbour.
    """

    def __init__(
        self,
        latency: LatencyModel,
        partition: Partition,
        engine: EngineOptions,
        costs: FixedCosts | None = None,
        block_tokens: int = BLOCK_TOKENS,
        feed: Feed | None = None,
        phases: PhaseOptions | None = None,
    ) -> None:
        if phases is not None and phases.tpot_s is not None:
            raise InputError(
                "a partitioned engine has no budget for a TPOT objective",
                "no step of it holds both prompts and decodes",
                "leave out tpot_s, and choose the shares instead",
            )
        super().__init__(latency, engine, costs, block_tokens, feed, phases=phases)
        self.partition = partition
        self.chunks: list[tuple[int, int, int]] = []
        self.prompt_end_s = inf
        self.decode_left_s: float | None = None
        self.prompt_steps = 0

    def advance(self, until_s: float) -> None:
        """Let pass all that happens before `until_s`."""
        self.until_s = until_s
        while self.now_s < until_s:
            self.waiting.extend(self.feed.take(self.now_s))
            if self.decode_left_s is None and self.decoding:
                self._begin_decodes()
            if not self.chunks:
                self._begin_prompts()
            self.kv.note_use()
            decode_end_s = self._decode_end_s()
            next_s = min(self.feed.next_s, self.prompt_end_s, decode_end_s)
            if next_s >= until_s:
                return
            self._pass_until(next_s)
            if self.prompt_end_s <= next_s:
                self._end_prompts()
            if decode_end_s <= next_s:
                self.decode_left_s = None
                self._end_decodes()

    @property
    def _slowdown(self) -> float:
        return self.partition.contention if self.chunks else 1.0

    def _decode_end_s(self) -> float:
        return inf if self.decode_left_s is None else self.now_s + self.decode_left_s * self._slowdown

    def _pass_until(self, next_s: float) -> None:
        passed_s = next_s - self.now_s
        if self.decode_left_s is not None:
            self.decode_left_s -= passed_s / self._slowdown
        if self.chunks or self.decode_left_s is not None:
            self.busy_s += passed_s
        self.now_s = next_s

    def _begin_decodes(self) -> None:
        """Begin a decode step, unless all that decode had to give up their blocks."""
        self._grow_decodes(self.done_steps + 1)
        seqs = len(self.decoding)
        if not seqs:
            return
        self.done_steps += 1
        self.seq_steps += seqs
        context = self.offsets + seqs * self.done_steps
        batch = StepBatch(decode_seqs=seqs, decode_context_tokens=context)
        self.decode_left_s = self.partition.decode.step_s(batch) + self.costs.step_s

    def _begin_prompts(self) -> None:
        """Begin a prompt step, if a prompt can be computed."""
        self.chunks = self._prefill(False, self.engine.max_num_batched_tokens)
        if not self.chunks:
            return
        self.partial = None  # what runs can't be preempted
        step_s = self.partition.prefill.step_s(batch_of(self.chunks))
        self.prompt_end_s = self.now_s + step_s + self.costs.step_s
        self.prompt_steps += 1
        self.seq_steps += len(self.chunks)

    def _end_prompts(self) -> None:
        ended, self.chunks, self.prompt_end_s = self.chunks, [], inf
        for request, done, new in ended:
            self._end_chunk(request, done + new)

    def run(self) -> EngineRun:
        """Return what both lanes did."""
        return replace(super().run(), steps=self.done_steps + self.prompt_steps)
