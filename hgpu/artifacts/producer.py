"""Who made an artifact: this program's version and, in a checkout, its commit."""

import functools
import subprocess
from pathlib import Path

import hgpu
from hgpu.artifacts.manifest import Producer


@functools.cache
def producer() -> Producer:
    """Return the version, and the commit where hgpu runs from a git checkout."""
    root = Path(hgpu.__file__).parent.parent
    sha = _git(root, "rev-parse", "HEAD") if (root / ".git").exists() else None
    if sha is None:
        return Producer(version=hgpu.__version__)
    status = _git(root, "status", "--porcelain", "--untracked-files=no")
    return Producer(version=hgpu.__version__, git_sha=sha, dirty=None if status is None else bool(status))


def _git(root: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
