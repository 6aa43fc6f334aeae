"""Recorded routing as an artifact, and the trace in it."""

from pathlib import Path

import numpy as np

from hgpu.artifacts.manifest import Environment
from hgpu.artifacts.payloads.routing import TRACE_FILE, RoutingPayload
from hgpu.artifacts.store import Artifact, Draft
from hgpu.core.model import ModelSpec
from hgpu.core.provenance import Provenance
from hgpu.latency.expert_hints import recall
from hgpu.latency.routing import RoutingTrace
from hgpu.profilers.experts import RoutingJob, RoutingResult
from hgpu.profilers.routing_record import RoutingRecord, from_npz


def routing_drafts(model: ModelSpec, job: RoutingJob, result: RoutingResult) -> list[Draft[RoutingPayload]]:
    """Return a recording as artifacts to save, one for each batch size."""
    return [_draft(model, job, result, batch) for batch in job.batches]


def _draft(model: ModelSpec, job: RoutingJob, result: RoutingResult, batch: int) -> Draft[RoutingPayload]:
    record = result.runs[batch]
    trace = trace_from(record, result.experts)
    decodes = trace.rows(~trace.prefill)
    payload = RoutingPayload(
        model=model,
        provenance=Provenance.MEASURED,
        batch=batch,
        prompts=len(job.prompts),
        temperature=job.temperature,
        seed=job.seed,
        layers=trace.layers,
        experts=trace.experts,
        per_token=trace.per_token,
        steps=len(trace.bounds),
        prefill_tokens=int(trace.prefill.sum()),
        decode_tokens=int((~trace.prefill).sum()),
        distinct_experts=distinct_experts(decodes),
        next_gate_recall=next_gate_recall(decodes),
        copies=result.copies,
    )
    return Draft(
        "routing",
        f"{Path(model.name).name}-{batch}",
        payload,
        options={"tokens": job.tokens, "load_format": job.load_format},
        environment=Environment(
            gpu=job.point.gpu,
            driver=result.driver or None,
            engine=result.engine,
            machine=result.machine,
        ),
        files={TRACE_FILE: record.to_npz()},
    )


def record_of(artifact: Artifact[RoutingPayload]) -> RoutingRecord:
    """Return what was recorded, with requests and positions."""
    return from_npz((artifact.path / TRACE_FILE).read_bytes())


def trace_of(artifact: Artifact[RoutingPayload]) -> RoutingTrace:
    """Return the trace to replay, prompts and decodes together."""
    return trace_from(record_of(artifact), artifact.payload.experts)


def trace_from(record: RoutingRecord, experts: int) -> RoutingTrace:
    """Return the trace of a record of a model with so many experts a layer."""
    requests = record.request.astype(np.int64)
    return RoutingTrace(
        experts, record.ids, record.step, record.token, record.prefill, record.next_gate, requests
    )


def distinct_experts(trace: RoutingTrace) -> float:
    """Return how many experts of a layer a step needs, in the mean over steps and layers."""
    layers = range(trace.layers)
    return float(np.mean([len(np.unique(ids)) for layer in layers for ids in trace.each_step(layer)]))


def next_gate_recall(trace: RoutingTrace) -> list[float] | None:
    """Return the next gate's recall in each layer but the first; None where it wasn't recorded."""
    gate = trace.next_gate
    if gate is None:
        return None
    return [recall(gate[:, layer], trace.ids[:, layer]) for layer in range(1, trace.layers)]
