"""How much memory training takes: what torch allocated on a GPU, the process's own on a CPU."""

from pathlib import Path

DEVICE, PROCESS = "device", "process"
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def held_bytes(device: str) -> int | None:
    """Return what is held now; None where the system doesn't tell (no Linux, or no such file)."""
    if device == "cuda":
        import torch

        return int(torch.cuda.memory_allocated())
    return _status("VmRSS")


def forget_peak(device: str) -> bool:
    """Let the peak begin anew; False where the system doesn't allow it."""
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
        return True
    try:
        _RESET.write_text("5", encoding="ascii")  # proc(5): resets VmHWM
    except OSError:
        return False
    return True


def peak_bytes(device: str) -> int | None:
    """Return the most that was held since `forget_peak`; None where the system doesn't tell."""
    if device == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated())
    return _status("VmHWM")


def _status(field: str) -> int | None:
    if not _STATUS.exists():
        return None
    lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    found = [line.split() for line in lines if line.startswith(f"{field}:")]
    return int(found[0][1]) * 1024 if found else None
