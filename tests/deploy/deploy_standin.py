"""Stand-ins for lifecycle tests: commands that start `standin_server.py`, and plans to deploy."""

import sys
from dataclasses import dataclass
from pathlib import Path

from hgpu.artifacts.payloads.plan import AllocationRow, PlanPayload, Solver
from hgpu.artifacts.store import Draft, save
from hgpu.core.gpu import DType
from hgpu.core.operating_point import EngineOptions, OperatingPoint
from hgpu.core.provenance import Provenance
from hgpu.deploy.launch import Launch
from hgpu.deploy.local import LocalDriver
from hgpu.runtime.machine import Machine


@dataclass(frozen=True)
class StandInCommands:
    """Starts the stand-in server for engines and routers alike; `flags` says how engines misbehave."""

    script: Path
    flags: tuple[str, ...] = ()

    def engine(self, plan, row, place, port, load_format):
        return Launch([*self._server(port), *self.flags], {"STAND_IN_CORES": str(place.cores)})

    def balancer(self, port, metrics_port, engines):
        return Launch([*self._server(port), *engines], {})

    def router(self, ref, port, metrics_port, pools, prefills):
        return Launch([*self._server(port), ref.digest, *pools.values(), *prefills.values()], {})

    def supervisor(self, folder):
        return Launch([sys.executable, "-S", "-E", "-c", "import time; time.sleep(600)"], {})

    def _server(self, port):
        return [sys.executable, "-S", "-E", str(self.script), str(port)]


def driver(folder, *flags, cores=(0, 1)):
    script = folder / "server.py"
    script.write_text(Path(__file__).with_name("standin_server.py").read_text())
    return LocalDriver(StandInCommands(script, flags), lambda: Machine(cores, ()))


def row(pool="chat", gpu="cpu-1core", engines=2, tp=1):
    options = EngineOptions(
        max_num_batched_tokens=1024, max_num_seqs=16, max_model_len=1024, enforce_eager=True
    )
    return AllocationRow(
        pool=pool,
        offer="local/this",
        region="here",
        market="owned",
        gpu=gpu,
        gpus_per_machine=1,
        tp=tp,
        mode="mixed",
        count=engines,
        engines=engines,
        usd_per_hour=0.1,
        utilization=0.5,
        price_date="2026-01-01",
        price_source="test",
        point=OperatingPoint(gpu=gpu, tp=tp, dtype=DType.FP32, engine=options),
        safety_factor=1.0,
    )


def payload(*rows, model_source="some/model", service="Chat service"):
    return PlanPayload(
        status="optimal",
        cost_usd_per_hour=0.2,
        idle_usd_per_hour=0.0,
        served=1.0,
        confidence=0.5,
        allocation=list(rows),
        baselines=[],
        savings_vs_best_single_type=None,
        routing=[],
        predicted=[],
        forbidden=[],
        solver=Solver(
            name="none", status="optimal", gap=0, bound_usd_per_hour=0.2, variables=0, constraints=0
        ),
        provenance=Provenance.ESTIMATED,
        service=service,
        model=None,
        model_source=model_source,
        slo=None,
        tiers=[],
        workload=None,
    )


def saved_plan(root, *rows, **fields):
    return save(root, Draft(kind="plan", slug="chat", payload=payload(*(rows or (row(),)), **fields)))
