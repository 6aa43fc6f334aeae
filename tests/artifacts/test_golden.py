"""Artifacts written by every schema version so far still load, and the schemas match the models."""

from dataclasses import replace
from pathlib import Path

import pytest

from hgpu.artifacts.kinds import KINDS
from hgpu.artifacts.schema import schemas
from hgpu.artifacts.store import load
from hgpu.core.gpu import DType
from hgpu.core.operating_point import OperatingPoint

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_version_of_a_kind_has_a_golden_artifact_that_loads(kind: str) -> None:
    for version in range(1, KINDS[kind].version + 1):
        artifact = load(GOLDEN / f"{kind}.v{version}")
        assert artifact.manifest.kind == kind
        assert isinstance(artifact.payload, KINDS[kind].payload)


def test_points_of_version_one_keep_their_cache_as_the_model_says() -> None:
    profiles, latencies = (
        [load(GOLDEN / f"{kind}.v{v}").payload for v in (1, 2)] for kind in ("profile", "latency")
    )
    plans, deployments = (
        [load(GOLDEN / f"{kind}.v{v}").payload for v in (1, 2)] for kind in ("plan", "deployment")
    )
    for old, new in (
        [payload.point for payload in profiles],
        [payload.point for payload in latencies],
        [payload.allocation[0].point for payload in plans],
        [payload.slots[0].point for payload in deployments],
    ):
        assert old.engine.kv_cache_dtype is None and new.engine.kv_cache_dtype is DType.FP8
        assert old == replace(new, engine=replace(new.engine, kv_cache_dtype=None))


def test_latencies_of_version_one_charge_nothing_for_prefill_itself() -> None:
    old, new = (load(GOLDEN / f"latency.v{version}").payload.latency.step for version in (1, 2))
    assert old.prefill_s == 0.0 < new.prefill_s
    assert old == replace(new, prefill_s=0.0)


def test_before_experts_were_copied_no_engine_had_a_cache_of_them() -> None:
    last = {"profile": 2, "latency": 2, "plan": 3, "deployment": 2}
    for kind, version in last.items():
        old, new = (_points(kind, one) for one in (version, version + 1))
        assert {point.experts for point in old} == {None} and None not in {point.experts for point in new}
    old, new = (load(GOLDEN / f"latency.v{version}").payload.latency.step for version in (2, 3))
    assert old.copies is None and old == replace(new, copies=None) != new
    (row,) = load(GOLDEN / "plan.v3").payload.allocation
    assert row.phases is not None and row.phases.step is not None and row.phases.step.copies is None


def _points(kind: str, version: int) -> list[OperatingPoint]:
    payload = load(GOLDEN / f"{kind}.v{version}").payload
    rows = {"plan": "allocation", "deployment": "slots"}
    return [row.point for row in (getattr(payload, rows[kind]) if kind in rows else [payload])]


def test_committed_schemas_are_those_of_the_models() -> None:
    folder = ROOT / "docs" / "schemas"
    for name, text in schemas().items():
        assert (folder / name).read_text() == text, "run `make schemas`"
    assert {path.name for path in folder.iterdir()} == set(schemas())
