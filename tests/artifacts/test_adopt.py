"""Artifacts of other machines, taken into the store."""

from pathlib import Path

import pytest

from hgpu.artifacts.adopt import adopt
from hgpu.artifacts.resolve import entries, resolve
from hgpu.artifacts.store import load, save
from hgpu.catalog.gpus import resolve_gpu
from hgpu.catalog.models import load_model
from hgpu.core.errors import ArtifactError
from hgpu.core.operating_point import OperatingPoint
from hgpu.latency.select import profile_draft
from hgpu.profilers.estimate import estimate


@pytest.fixture
def made(tmp_path: Path) -> Path:
    model, point = load_model("meta-llama/Llama-3.2-1B"), OperatingPoint("L4")
    return save(
        tmp_path / "away", profile_draft(model, point, estimate(model, resolve_gpu("L4"), point), {})
    ).path


def test_an_artifact_is_taken_as_it_is_and_once(made: Path, tmp_path: Path) -> None:
    root = tmp_path / "home"
    (made / "stray").write_text("not of the artifact")
    taken = adopt(root, made)
    assert taken.manifest == load(made).manifest and taken.path == root / "profile" / made.name
    assert sorted(p.name for p in taken.path.iterdir()) == ["manifest.json", "samples.parquet"]
    assert adopt(root, made).path == taken.path and len(entries(root)) == 1
    assert resolve(root, taken.short, "profile").digest == taken.digest


def test_what_is_damaged_or_has_another_name_is_refused(made: Path, tmp_path: Path) -> None:
    root = tmp_path / "home"
    other = made.rename(made.with_name("20260101T000000.000Z-x-000000000000"))
    with pytest.raises(ArtifactError, match="another artifact's name"):
        adopt(root, other)
    (other / "samples.parquet").write_bytes(b"x")
    with pytest.raises(ArtifactError, match="damaged"):
        adopt(root, other)
    assert not root.exists() or list(root.rglob("*.json")) == []
