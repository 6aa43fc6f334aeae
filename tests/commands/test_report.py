import json
from pathlib import Path

from report.cases import saved_plan, saved_simulation
from tests_types import Run


def test_a_page_is_written_where_it_is_wanted_and_listed(hgpu: Run, tmp_path: Path) -> None:
    plan = saved_plan(tmp_path / "results")
    done = hgpu("report", plan.short, "--out", "deep/er/plan.html", "--json")
    assert done.returncode == 0, done.stderr
    (page,) = json.loads(done.stdout)["pages"]
    path = tmp_path / "deep" / "er" / "plan.html"
    assert page == {
        "path": "deep/er/plan.html",
        "kind": "plan",
        "digest": plan.digest,
        "bytes": path.stat().st_size,
    }
    assert [file.name for file in path.parent.iterdir()] == ["plan.html"]


def test_without_a_name_a_page_is_named_for_its_artifact(hgpu: Run, tmp_path: Path) -> None:
    plan = saved_plan(tmp_path / "results")
    assert hgpu("report", "latest").stdout == f"plan-{plan.short}.html\n"


def test_relatives_get_pages_beside_it_and_links_only_when_asked(hgpu: Run, tmp_path: Path) -> None:
    plan = saved_plan(tmp_path / "results")
    simulation = saved_simulation(tmp_path / "results", plan)
    name = f"simulation-{simulation.short}.html"
    assert hgpu("report", plan.short).stdout.splitlines() == [f"plan-{plan.short}.html"]
    assert f'href="{name}"' not in (tmp_path / f"plan-{plan.short}.html").read_text()
    done = hgpu("report", plan.short, "--open-related")
    assert done.stdout.splitlines() == [f"plan-{plan.short}.html", name]
    assert f'href="{name}"' in (tmp_path / f"plan-{plan.short}.html").read_text()


def test_a_folder_is_no_page(hgpu: Run, tmp_path: Path) -> None:
    plan = saved_plan(tmp_path / "results")
    done = hgpu("report", plan.short, "--out", str(tmp_path))
    assert done.returncode == 2 and f"plan-{plan.short}.html" in done.stderr


def test_what_isnt_there_is_an_error_of_the_users(hgpu: Run) -> None:
    assert hgpu("report", "0123abcd").returncode == 2
