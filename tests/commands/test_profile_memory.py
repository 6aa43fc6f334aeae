import json
from pathlib import Path

from tests_types import Run

SYSFS = Path(__file__).parents[1] / "profilers" / "sysfs"


def test_a_recorded_machine_is_shown_and_kept_once(hgpu: Run, tmp_path: Path) -> None:
    done = hgpu("profile", "memory", "--sysfs", str(SYSFS / "cxl"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("no CPUs: CXL?") == 2 and "estimated, valid" in done.stdout
    again = json.loads(hgpu("profile", "memory", "--sysfs", str(SYSFS / "cxl"), "--json").stdout)
    assert [node["node"] for node in again["nodes"]] == [0, 1, 2, 3]
    assert again["validity"] == {"valid": True, "reasons": []}
    kept = list((tmp_path / "results" / "memory").iterdir())
    assert len(kept) == 1 and str(tmp_path / again["path"]) == str(kept[0])
    assert "no CPUs: CXL?" in hgpu("show", again["digest"][:12]).stdout


def test_a_measurement_that_cannot_be_believed_is_kept_and_marked(hgpu: Run) -> None:
    words = ["profile", "memory", "--repeats", "2", "--array-mib", "1", "--adam", "0.01", "--json"]
    done = hgpu(*words)
    assert done.returncode == 4 and "aren't 4 times the caches'" in done.stderr
    measured = json.loads(done.stdout)
    assert measured["provenance"] == "measured" and not measured["validity"]["valid"]
    assert {row["traffic"] for row in measured["bandwidth"]} == {"read", "copy", "add"}
    shown = hgpu("show", measured["digest"][:12]).stdout
    assert "INVALID" in shown


def test_help_of_the_two_words_has_an_example(hgpu: Run) -> None:
    assert "Example: hgpu profile memory" in hgpu("profile", "memory", "--help").stdout
    assert "spec.yaml" in hgpu("profile", "--help").stdout
