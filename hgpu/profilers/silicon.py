"""Step times composed of measured kernel times, for GPU types that aren't attached.

The package aiconfigurator-core 0.12 (Apache-2.0, the extra `silicon`) ships tables of kernels that
NVIDIA timed on real devices, most of them as vLLM 0.24 runs them. A step here is the sum of its
kernels: nothing of the engine around them was measured, so every sample says `estimated`.

    kernels = linear(T)        projections, MLP or experts, norms and all-reduces of T tokens at once
      + head(seqs)             the output head runs for one token of each sequence
      + prefill_attention(n after c)
      + decode_attention(seqs at their mean context)

    t = step_overhead_s + sequence_overhead_s · seqs + kernels
      + (prefill_slowdown − 1) · (kernels − kernels of the step's decodes alone)

T is prefill and decode tokens together, because an engine multiplies them in one batch: weights
are read once. The package's own mixed step does so too, but spreads the attention of a prompt
evenly over its chunks; here each chunk pays for the context that it really has. Kernels that fill
the gaps between the tabulated shapes are interpolated by the package; norms, activations and
look-ups are its own bandwidth formula (`table_share` says what part of the time is not).
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from hgpu.core.errors import InputError
from hgpu.core.gpu import GpuType
from hgpu.core.model import ModelSpec
from hgpu.core.operating_point import EngineOptions, OperatingPoint
from hgpu.core.provenance import Provenance
from hgpu.core.step import StepBatch
from hgpu.profilers.design import Script, batches, design
from hgpu.profilers.efficiency import Efficiency
from hgpu.profilers.estimate import Roofline, checked_capacity
from hgpu.profilers.result import ProfileResult
from hgpu.profilers.samples import Sample
from hgpu.profilers.silicon_tables import kernels, speaking_of

SETUP_TOKENS = 131_072


@dataclass(frozen=True, slots=True)
class Overheads:
    """What an engine adds to its kernels; kept in the profile.

    Its times come from one public source: vLLM 0.20 serving Qwen3-32B in BF16 on B300, timed step by step
    (repository ai-dynamo/aiconfigurator, folder fpm_golden_runs, June 2026; the table in docs/silicon.md).

    - `step_overhead_s`, `sequence_overhead_s`: its decode rows take 1.25 and 0.7 ms more than their kernels
      for one sequence, 1.6 and 1.0 ms for 14 (on 1 and 2 devices): 0.95 ms and 25 µs a sequence.
    - `prefill_slowdown`: with those taken off, its eight prefill and mixed rows together take 1.07 of
      their kernels. It multiplies what the prefill adds to a step: all kernels of a pure prefill, those
      beyond the decodes' own where both share a step.
    - `workspace_bytes` is the roofline's.
    """

    step_overhead_s: float = 0.95e-3
    prefill_slowdown: float = 1.07
    sequence_overhead_s: float = 2.5e-5
    workspace_bytes: float = Efficiency().workspace_bytes

    def step_s(self, batch: StepBatch, kernels_s: Callable[[StepBatch], float]) -> float:
        """Return the seconds of an engine's step, given a function that times the kernels of one."""
        all_s = kernels_s(batch)
        added_s = max(0.0, all_s - kernels_s(batch.decodes)) if batch.decode_seqs else all_s
        host_s = self.step_overhead_s + self.sequence_overhead_s * batch.seqs
        return host_s + all_s + (self.prefill_slowdown - 1) * added_s


def silicon(model: ModelSpec, source: str, gpu: GpuType, point: OperatingPoint) -> ProfileResult:
    """Return a profile of `model` at `point`, composed of measured kernel times.

    `source` is the folder, config or id that the model was loaded from. Raises InputError where
    the tables hold no such GPU type, degree, format or model, or aren't installed, and
    Infeasible where the model doesn't fit the memory.
    """
    if point.experts is not None:
        raise InputError(
            f"{point.name} isn't in the kernel tables",
            "they time engines with all weights on the device, in CUDA graphs",
            "estimate it with the profiler `estimate`",
        )
    overheads = Overheads()
    model = model.cached_in(point.engine.kv_cache_dtype)
    timed = kernels(model, source, gpu, point.tp)
    memory = replace(Efficiency(), workspace_bytes=overheads.workspace_bytes)
    capacity = checked_capacity(Roofline(model, gpu, point.tp, memory), point)
    samples: list[Sample] = []
    parts: list[tuple[float, str]] = []
    with speaking_of(f"{model.name} on {point.name}"):
        for script in _scripts(point.engine, capacity):
            for batch in batches(script, point.engine.max_num_batched_tokens):
                samples.append(Sample(script.name, batch, overheads.step_s(batch, timed.step_s)))
                parts.extend(timed.parts(batch))
    share = sum(s for s, origin in parts if origin != "empirical") / sum(s for s, _ in parts)
    return ProfileResult(
        "silicon",
        Provenance.ESTIMATED,
        tuple(samples),
        capacity,
        engine=timed.tables,
        assumptions=asdict(overheads) | {"table_share": round(share, 4)},
    )


def _scripts(engine: EngineOptions, capacity: int) -> list[Script]:
    """Return the design of a measured profile, and batches that cost nothing where none is run.

    Prompts of several chunks, alone and beside decodes: a fit whose error is of scripts that it
    hasn't seen needs more than one that reads context.
    """
    budget, longest, top = engine.max_num_batched_tokens, engine.max_model_len - 1, engine.max_num_seqs
    prompts = [min(tokens, longest) for tokens in (3 * budget // 2, 2 * budget, longest)]
    extra = [Script(f"prefill-{tokens}", prefill_tokens=tokens) for tokens in prompts]
    for seqs in sorted({min(top, budget // 2, decodes) for decodes in (8, 32, 128)}):
        context = min(1024, longest // 2, capacity // (2 * seqs))
        tokens = min(2 * budget, longest)
        extra.append(Script(f"mixed-{seqs}x{context}+{tokens}", seqs, context, 8, tokens))
    scripts = [*design(engine, min(SETUP_TOKENS, capacity)), *extra]
    return list({script.name: script for script in scripts}.values())
