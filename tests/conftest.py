"""What several test folders need."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# Machines are shared: an example may take long without being wrong.
settings.register_profile("hgpu", deadline=None)
settings.load_profile("hgpu")

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def hgpu(tmp_path: Path) -> Run:
    """Run the program as a user would, in an empty folder of its own."""

    def run(
        *words: str, env: dict[str, str] | None = None, cwd: Path = tmp_path
    ) -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if key not in ("CI", "HGPU_RESULTS")}
        environment.update(env or {})
        return subprocess.run(
            [sys.executable, "-m", "hgpu", *words],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run
