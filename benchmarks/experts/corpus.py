"""Python's standard library as a corpus: files to train on, and files held out of training."""

import sysconfig
from hashlib import sha256
from pathlib import Path
from typing import Literal

LEFT_OUT = ("test", "tests", "idlelib", "lib2to3", "site-packages", "__pycache__", "pydoc_data", "encodings")
HELD_OUT_SHARE = 0.1
SHORTEST_BYTES = 2000

Split = Literal["train", "held-out"]


def sources(split: Split) -> list[Path]:
    """Return the standard library's files of a split, by name; the name alone decides the split."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = [
        path
        for path in sorted(root.rglob("*.py"))
        if not set(path.relative_to(root).parts) & set(LEFT_OUT) and path.stat().st_size >= SHORTEST_BYTES
    ]
    return [path for path in files if _held_out(path.relative_to(root)) == (split == "held-out")]


def texts(split: Split) -> list[str]:
    """Return what these files hold."""
    return [path.read_text(encoding="utf-8", errors="replace") for path in sources(split)]


def _held_out(name: Path) -> bool:
    return int(sha256(name.as_posix().encode()).hexdigest()[:8], 16) / 2**32 < HELD_OUT_SHARE
