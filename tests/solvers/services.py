"""Services with estimated latency models, planned in this process."""

from pathlib import Path
from typing import Any

from hgpu.latency.select import select_latency
from hgpu.solvers.demand import Candidates, Demand
from hgpu.specs.serve import ServeSpec
from hgpu.specs.service import service_of

SPEC: dict[str, Any] = {
    "kind": "serve",
    "model": "meta-llama/Llama-3.1-8B-Instruct",
    "workload": {"lengths": "chat", "rate_rps": 4, "requests": 2000},
    "slo": {"tpot_ms": 120, "ttft_ms": 2000},
    "gpus": ["L4", "A100-80GB"],
    "offers": {"clouds": ["gcp", "azure"]},
}


def demand(root: Path, key: str = "", confidence: float = 0.5, **changes: Any) -> Demand:
    """A service on estimates; `changes` replace keys of the spec."""
    service = service_of(ServeSpec.model_validate({**SPEC, **changes}))
    selection = select_latency(root, service.model, service.points, (), only_estimates=True)
    models = {point: artifact.payload.latency for point, artifact in selection.chosen.items()}
    return Demand(service, Candidates(models, selection.refused, confidence), key)
