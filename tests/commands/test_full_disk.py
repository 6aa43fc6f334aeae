"""Commands on a disk that takes nothing: three lines, exit 1, and no half-written artifact."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from tests_types import Run

LIMIT_BYTES = 300  # no file may grow beyond this: a write then fails as on a full disk


def with_little_room(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    script = (
        "import resource, runpy, sys\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({LIMIT_BYTES}, {LIMIT_BYTES}))\n"
        f"sys.argv = ['hgpu', *{list(words)!r}]\n"
        "runpy.run_module('hgpu', run_name='__main__')\n"
    )
    environment = {key: value for key, value in os.environ.items() if key not in ("CI", "HGPU_RESULTS")}
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no file size limit on this system")
def test_every_stage_that_writes(hgpu: Run, tmp_path: Path) -> None:
    assert hgpu("init", "serve", "--out", "spec.yaml").returncode == 0
    plan = json.loads(hgpu("plan", "spec.yaml", "--json").stdout)
    profile = json.loads(hgpu("list", "profile", "--json").stdout)[0]
    for words in (
        ["init", "serve", "--out", "other.yaml"],
        ["profile", "spec.yaml", "--profiler", "estimate", "--results", "empty"],
        ["plan", "spec.yaml", "--results", "empty"],
        ["fit", profile["path"], "--results", "empty"],
    ):
        done = with_little_room(tmp_path, *words)
        lines = done.stderr.strip().splitlines()[-3:]
        assert [line.split(":")[0] for line in lines] == ["error", "why", "fix"], done.stderr
        assert "Traceback" not in done.stderr and done.returncode in (1, 2)
    assert list((tmp_path / "empty").rglob("manifest.json")) == []
    assert json.loads(hgpu("show", plan["digest"][:12], "--json").stdout)["digest"] == plan["digest"]
