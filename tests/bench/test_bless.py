import json
from pathlib import Path

import pytest
from bench.made_loads import Load, save_arm, save_load
from tests_types import Run

from hgpu.artifacts.manifest import Validity
from hgpu.artifacts.payloads.bench import BenchPayload
from hgpu.artifacts.resolve import resolve, resolve_all
from hgpu.artifacts.store import Draft, save
from hgpu.core.errors import ArtifactError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "results"


def test_a_blessed_artifact_is_what_its_name_means(hgpu: Run, root: Path) -> None:
    first, second = save_load(root, 1), save_load(root, 2)
    assert hgpu("bench", "bless", first.digest[:12], "main").returncode == 0
    assert resolve(root, "@main").digest == resolve(root, "@main", "load").digest == first.digest
    told = json.loads(hgpu("bench", "bless", str(second.path), "main", "--json").stdout)
    assert told["digests"] == [second.digest] and resolve(root, "@main").digest == second.digest
    assert hgpu("bench", "bless", "@main", "released").returncode == 0
    assert resolve(root, "@released").digest == second.digest


def test_runs_blessed_together_are_one_arm(hgpu: Run, root: Path) -> None:
    base, head = save_arm(root, range(5)), save_arm(root, range(10, 15))
    assert hgpu("bench", "bless", base, "main").returncode == 0
    assert len(resolve_all(root, "@main", "load")) == 5
    with pytest.raises(ArtifactError, match="names 5 artifacts"):
        resolve(root, "@main", "load")
    done = hgpu("bench", "compare", "@main", head)
    assert done.returncode == 0 and "5 runs against 5 runs" in done.stdout, done.stderr


def test_a_name_of_two_kinds_means_the_kind_of_the_other_arm(hgpu: Run, root: Path) -> None:
    other = save(root, Draft("bench", "s", BenchPayload(url="u", duration_s=1.0, seed=0, rows=[])))
    base, head = save_load(root, 1), save_load(root, 2)
    for ref in (other.digest, base.digest):
        assert hgpu("bench", "bless", ref, "main").returncode == 0
    assert hgpu("bench", "compare", "@main", head.digest).returncode == 5  # one run an arm
    assert hgpu("bench", "bless", "@main", "copy", "--kind", "load").returncode == 0
    assert resolve(root, "@copy").digest == base.digest


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [("../x", 2, "no name for a ref"), ("a b", 2, "no name for a ref"), ("", 2, "no name for a ref")],
)
def test_a_name_must_be_one(hgpu: Run, root: Path, name: str, code: int, text: str) -> None:
    done = hgpu("bench", "bless", save_load(root, 1).digest, name)
    assert done.returncode == code and text in done.stderr
    assert not (root / "refs").exists()


def test_what_is_not_valid_can_not_be_blessed(hgpu: Run, root: Path) -> None:
    storm = save_load(root, 1, Load(trouble="an error storm"))
    payload = BenchPayload(url="u", duration_s=1.0, seed=0, rows=[])
    late = save(root, Draft("bench", "s", payload, validity=Validity(valid=False, reasons=["late"])))
    for made, text in ((storm, "an error storm"), (late, "late")):
        done = hgpu("bench", "bless", made.digest, "main")
        assert done.returncode == 4 and text in done.stderr
    assert not (root / "refs").exists()


def test_a_ref_is_of_one_kind_and_of_its_own_folder(hgpu: Run, root: Path, tmp_path: Path) -> None:
    payload = BenchPayload(url="u", duration_s=1.0, seed=0, rows=[])
    other = save(root, Draft("bench", "s", payload))
    mixed = hgpu("bench", "bless", f"{other.digest},{save_load(root, 1).digest}", "main")
    assert mixed.returncode == 2 and "one kind" in mixed.stderr
    away = hgpu("bench", "bless", str(save_load(tmp_path / "other", 1).path), "main")
    assert away.returncode == 2 and "isn't kept under" in away.stderr
