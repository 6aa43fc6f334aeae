"""Table, Markdown and JUnit are all of one comparison."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import yaml
from bench.made_loads import KEYS, Load, save_arm
from tests_types import Run

from hgpu.artifacts.payloads.comparison import ComparisonPayload
from hgpu.artifacts.resolve import entries, resolve
from hgpu.report.comparison_files import comparison_junit, comparison_markdown

ODD = 'in|put <b>"x"</b> & \\ \x07 end'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "results"


def payload_of(root: Path) -> ComparisonPayload:
    (entry,) = entries(root, "comparison")
    payload = resolve(root, str(entry.path), "comparison").payload
    assert isinstance(payload, ComparisonPayload)
    return payload


def test_files_are_written_and_the_summary_of_a_ci_step_grows(hgpu: Run, root: Path, tmp_path: Path) -> None:
    arms = save_arm(root, range(3)), save_arm(root, range(10, 13), Load(slower=1.5))
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    words = ("--markdown", "made.md", "--junit", "made.xml")
    done = hgpu("bench", "compare", *arms, *words, env={"GITHUB_STEP_SUMMARY": str(summary)})
    assert done.returncode == 3
    payload = payload_of(root)
    assert (tmp_path / "made.md").read_text(encoding="utf-8") == comparison_markdown(payload)
    assert (tmp_path / "made.xml").read_text(encoding="utf-8") == comparison_junit(payload)
    assert summary.read_text(encoding="utf-8") == "before\n" + comparison_markdown(payload) + "\n"
    assert "REGRESSED" in done.stdout.splitlines()[0]
    assert "REGRESSED" in hgpu("show", str(entries(root, "comparison")[0].path)).stdout


@pytest.mark.parametrize("slower", [1.0, 1.5])
def test_markdown_and_junit_are_well_formed_whatever_a_point_is_called(
    hgpu: Run, root: Path, slower: float
) -> None:
    arms = [
        save_arm(root, range(n, n + 3), Load(points=(ODD,), slower=s)) for n, s in ((0, 1.0), (9, slower))
    ]
    done = hgpu("bench", "compare", *arms)
    assert done.returncode in (0, 3, 5), done.stderr
    payload = payload_of(root)
    lines = [line for line in comparison_markdown(payload).splitlines() if line.startswith("|")]
    cells = {len(line.replace("\\\\", "").replace("\\|", "").split("|")) for line in lines}
    assert len(lines) == 2 + len(payload.rows) and cells == {10}
    assert "<b>" not in comparison_markdown(payload)
    suite = ET.fromstring(comparison_junit(payload).encode()).find("testsuite")
    assert suite is not None
    deciding = [row for row in payload.rows if row.confirmatory]
    cases = {case.get("name"): case for case in suite}
    assert set(cases) == {row.metric for row in deciding} and int(suite.get("tests", "")) == len(deciding)
    for row in deciding:
        failed = cases[row.metric].find("failure") is not None
        assert failed == (row.verdict == "regressed")
        assert (cases[row.metric].find("skipped") is not None) == (row.verdict == "inconclusive")
    assert int(suite.get("failures", "")) == sum(row.verdict == "regressed" for row in deciding)


def test_what_is_not_comparable_is_an_error_in_junit_and_first_in_markdown(hgpu: Run, root: Path) -> None:
    other = Load(keys={**KEYS, "model_revision": "def"})
    assert (
        hgpu("bench", "compare", save_arm(root, range(3)), save_arm(root, range(9, 12), other)).returncode
        == 4
    )
    payload = payload_of(root)
    suite = ET.fromstring(comparison_junit(payload).encode()).find("testsuite")
    assert suite is not None and suite.get("errors") == suite.get("tests") == "1"
    message = suite.findall("./testcase/error")[0].get("message", "")
    assert "model_revision differs: abc against def" in message
    first, _, reason = comparison_markdown(payload).splitlines()[:3]
    assert "invalid" in first and "model_revision" in reason


def test_the_workflows_to_copy_are_yaml_and_use_options_that_exist(hgpu: Run) -> None:
    page = (Path(__file__).parents[2] / "docs" / "ci.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 2
    known = hgpu("bench", "compare", "--help", env={"COLUMNS": "200"}).stdout
    for block in blocks:
        steps = [step for job in yaml.safe_load(block)["jobs"].values() for step in job["steps"]]
        script = " ".join(step.get("run", "").replace("\\\n", " ") for step in steps)
        (command,) = re.findall(r"hgpu bench compare[^\n]*", script)
        options = re.findall(r"--[a-z]+", command)
        assert options and all(option in known for option in options), options
