"""What a profile's numbers are of: the vLLM, the driver and the machine."""

import importlib.util
import os
import platform
import sys
from pathlib import Path

from hgpu.core.errors import EngineError


def require_vllm() -> None:
    """Raise EngineError where vLLM can't be imported."""
    if importlib.util.find_spec("vllm") is None:
        raise EngineError(
            "vLLM isn't installed",
            f"'{sys.executable}' can't import vllm",
            "pip install 'hgpu[vllm]' (GPU), or make vllm (CPU)",
        )


def vllm_version() -> str:
    """Return the engine's name and version."""
    import vllm

    return f"vllm {vllm.__version__}"


def driver_and_machine() -> tuple[str, str]:
    """Return the driver's version (empty on a CPU) and what the engine runs on."""
    import torch

    if torch.cuda.is_available():
        import pynvml

        pynvml.nvmlInit()
        return pynvml.nvmlSystemGetDriverVersion(), torch.cuda.get_device_name(0)
    return "", f"{cpu_model()}, {len(os.sched_getaffinity(0))} cores"


def visible_devices() -> str | None:
    """Return the devices that CUDA was told to show to the engine; None on a CPU."""
    import torch

    return os.environ.get("CUDA_VISIBLE_DEVICES", "") if torch.cuda.is_available() else None


def cpu_model() -> str:
    """Return what the CPU calls itself."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
