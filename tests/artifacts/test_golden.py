"""Artifacts written by every schema version so far still load, and the schemas match the models."""

from pathlib import Path

import pytest

from hgpu.artifacts.kinds import KINDS
from hgpu.artifacts.schema import schemas
from hgpu.artifacts.store import load

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_version_of_a_kind_has_a_golden_artifact_that_loads(kind: str) -> None:
    for version in range(1, KINDS[kind].version + 1):
        artifact = load(GOLDEN / f"{kind}.v{version}")
        assert artifact.manifest.kind == kind
        assert isinstance(artifact.payload, KINDS[kind].payload)


def test_committed_schemas_are_those_of_the_models() -> None:
    folder = ROOT / "docs" / "schemas"
    for name, text in schemas().items():
        assert (folder / name).read_text() == text, "run `make schemas`"
    assert {path.name for path in folder.iterdir()} == set(schemas())
