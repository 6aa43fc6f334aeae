"""The README's commands run, its table is what the demo prints, and its links lead somewhere."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tests_types import Run

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted((ROOT / "docs").glob("*.md"))


def commands(text: str) -> list[str]:
    """The lines of the blocks marked `sh`, which are those that run anywhere."""
    return [
        line
        for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
        for line in block.splitlines()
        if line
    ]


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda path: path.name)
def test_every_command_of_a_page_runs(hgpu: Run, page: Path) -> None:
    for line in commands(page.read_text(encoding="utf-8")):
        program, *words = shlex.split(line, comments=True)
        assert program == "hgpu"
        done = hgpu(*words)
        assert done.returncode == 0, f"{line}\n{done.stderr}"


def test_the_readme_has_commands_to_run() -> None:
    assert len(commands(README)) >= 4


def test_the_table_of_the_readme_is_what_the_demo_plans(hgpu: Run) -> None:
    rows = re.findall(
        r"^\| (\d+) \| (\d+) ms \| (.+?) \| ([\d.]+) \| .+? \| ([\d.]+) \| (-?\d+) % \| (\d+) % \|$",
        README,
        re.MULTILINE,
    )
    assert hgpu("init", "serve", "--out", "spec.yaml").returncode == 0
    done = hgpu(
        "plan",
        "spec.yaml",
        "--estimate",
        "--sweep",
        "rate=1,4,16,64",
        "--sweep",
        "slo.tpot_ms=40,120",
        "--json",
    )
    planned = []
    for cell in json.loads(done.stdout)["sweep"]:
        singles = [row["cost_usd_per_hour"] for row in cell["baselines"] if row["cost_usd_per_hour"]]
        best, cost = min(singles), cell["cost_usd_per_hour"]
        dearest = f"{round(100 * (1 - cost / max(singles)))}"
        fleet = " + ".join(f"{row['count']}× {row['gpu']}" for row in cell["allocation"])
        rate, tpot = cell["values"]["workload.rate_rps"], cell["values"]["slo.tpot_ms"]
        saving = round(100 * cell["savings_vs_best_single_type"])
        planned.append((f"{rate:g}", f"{tpot:g}", fleet, f"{cost:.2f}", f"{best:.2f}", f"{saving}", dearest))
    assert rows == planned


def test_the_demo_script_runs(tmp_path: Path) -> None:
    bin_folder = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "HGPU_RESULTS": str(tmp_path / "results"),
    }
    done = subprocess.run(
        ["bash", str(ROOT / "runs" / "demo.sh")],
        env=environment,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("A100-80GB") > 4 and "profile:" in done.stdout


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
