"""Reads a machine's memory nodes from sysfs, or from a recording of another machine's.

The files are those of the kernel's Documentation/ABI/stable/sysfs-devices-node and
Documentation/admin-guide/mm/numaperf.rst: bandwidths in MB/s, latencies in nanoseconds.
"""

from collections.abc import Iterable
from pathlib import Path

from hgpu.core.errors import InputError
from hgpu.core.memory import MemoryNode

SYSFS = Path("/sys")
NODES = Path("devices/system/node")
CPUS = Path("devices/system/cpu")
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


def read_topology(root: Path = SYSFS) -> tuple[MemoryNode, ...]:
    """Return the machine's online nodes. Raises InputError where sysfs holds none, or not as documented."""
    folder = root / NODES
    try:
        numbers = expand(_text(folder / "online"))
        return tuple(_node(folder / f"node{number}", number, numbers) for number in numbers)
    except FileNotFoundError as error:
        raise InputError(
            f"can't read the memory nodes under {root}",
            f"{error.filename} is missing",
            "Linux with NUMA support has them, also for one node; give --sysfs what stands for /sys",
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(
            f"can't read the memory nodes under {root}", str(error), "record the tree again"
        ) from error


def cache_bytes(root: Path = SYSFS) -> int:
    """Return the bytes of all last-level caches together; 0 where sysfs doesn't say."""
    found: dict[tuple[int, str], int] = {}  # by level and the CPUs that share one
    for cache in (root / CPUS).glob("cpu[0-9]*/cache/index*"):
        size = _text(cache / "size")
        if size[-1:] in UNITS:
            key = int(_text(cache / "level")), _text(cache / "shared_cpu_list")
            found[key] = int(size[:-1]) * UNITS[size[-1]]
    last = max((level for level, _ in found), default=0)
    return sum(size for (level, _), size in found.items() if level == last)


def expand(ranges: str) -> list[int]:
    """Return the numbers of the kernel's list format, such as `0-3,8`."""
    numbers: list[int] = []
    for part in filter(None, ranges.split(",")):
        first, _, last = part.partition("-")
        numbers.extend(range(int(first), int(last or first) + 1))
    return numbers


def _node(folder: Path, number: int, numbers: Iterable[int]) -> MemoryNode:
    memory = _meminfo(folder / "meminfo")
    distances = [int(word) for word in _text(folder / "distance").split()]
    access = folder / "access0" / "initiators"
    return MemoryNode(
        number,
        tuple(expand(_text(folder / "cpulist"))),
        memory["MemTotal"],
        memory["MemFree"],
        memory.get("Inactive(file)", 0),
        dict(zip(numbers, distances, strict=True)),
        tuple(sorted(int(link.name.removeprefix("node")) for link in access.glob("node[0-9]*"))),
        _claim(access / "read_bandwidth", 1e6),
        _claim(access / "write_bandwidth", 1e6),
        _claim(access / "read_latency", 1e-9),
        _claim(access / "write_latency", 1e-9),
    )


def _meminfo(path: Path) -> dict[str, int]:
    """Return the lines `Node 0 MemTotal:  24209612 kB` in bytes."""
    rows = [line.split() for line in _text(path).splitlines()]
    found = {row[2].rstrip(":"): int(row[3]) * 1024 for row in rows if len(row) == 5}
    if not {"MemTotal", "MemFree"} <= found.keys():
        raise ValueError(f"{path} has no MemTotal and MemFree")
    return found


def _claim(path: Path, unit: float) -> float | None:
    """Return a figure of the firmware in SI units; None where it gives none, or 0."""
    return (int(_text(path)) * unit or None) if path.exists() else None


def _text(path: Path) -> str:
    return path.read_text(encoding="ascii").strip()
