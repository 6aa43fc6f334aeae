import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hgpu.artifacts.lineage import lineage
from hgpu.artifacts.manifest import InputRef, Validity
from hgpu.artifacts.payloads.bench import BenchPayload
from hgpu.artifacts.resolve import entries, resolve
from hgpu.artifacts.reuse import save_once
from hgpu.artifacts.store import Artifact, Draft, save
from hgpu.core.errors import ArtifactError, UnknownName

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def no_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)


def put(
    root: Path, seed: int, age_s: int = 0, valid: bool = True, inputs: tuple[InputRef, ...] = ()
) -> Artifact[BenchPayload]:
    payload = BenchPayload(url="u", duration_s=1.0, seed=seed, rows=[])
    made = Draft("bench", "s", payload, inputs=inputs, validity=Validity(valid=valid))
    return save(root, made, now=START - timedelta(seconds=age_s))


def test_latest_is_the_newest_valid_one(tmp_path: Path) -> None:
    put(tmp_path, 1, age_s=20)
    wanted = put(tmp_path, 2, age_s=10)
    put(tmp_path, 3, valid=False)
    assert resolve(tmp_path, "latest").digest == wanted.digest
    assert resolve(tmp_path, "latest", accept=lambda a: a.payload.seed == 1).payload.seed == 1


def test_latest_is_refused_under_ci(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, 1)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(ArtifactError, match="refused under CI"):
        resolve(tmp_path, "latest")


def test_a_path_a_prefix_and_a_ref_all_lead_there(tmp_path: Path) -> None:
    made = put(tmp_path, 1)
    ref = tmp_path / "refs" / "bench" / "main.json"
    ref.parent.mkdir(parents=True)
    ref.write_text(json.dumps({"digest": made.digest}))
    for name in (str(made.path), str(made.path / "manifest.json"), made.digest[:6], made.digest, "@main"):
        assert resolve(tmp_path, name).digest == made.digest


def test_an_artifact_of_another_kind_is_named_not_denied(tmp_path: Path) -> None:
    made = put(tmp_path, 1)
    for ref in (made.digest[:6], made.digest, str(made.path)):
        with pytest.raises(ArtifactError, match=f"'{ref}' is a bench") as caught:
            resolve(tmp_path, ref, "plan")
        assert caught.value.why == "a plan is needed here"


def test_a_file_is_no_artifact(tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text("kind: serve")
    with pytest.raises(ArtifactError, match="is a file, and a plan is needed here"):
        resolve(tmp_path, str(spec), "plan")


def test_a_ref_that_is_spelled_wrong_is_told_the_nearest(tmp_path: Path) -> None:
    made = put(tmp_path, 1)
    ref = tmp_path / "refs" / "bench" / "main.json"
    ref.parent.mkdir(parents=True)
    ref.write_text(json.dumps({"digest": made.digest}))
    with pytest.raises(UnknownName, match="unknown ref '@mian'") as caught:
        resolve(tmp_path, "@mian")
    assert caught.value.fix == "did you mean @main?"


@pytest.mark.parametrize("ref", ["nothing", "ffff", "@none", "@../../etc/passwd", "latest", "", "abc"])
def test_what_is_not_there_is_a_clear_error(tmp_path: Path, ref: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        resolve(tmp_path, ref)
    assert len(caught.value.lines()) >= 2


def test_a_longer_prefix_must_match_in_full(tmp_path: Path) -> None:
    made = put(tmp_path, 1)
    wrong = made.digest[:20] + ("0" if made.digest[20] != "0" else "1")
    with pytest.raises(ArtifactError):
        resolve(tmp_path, wrong)


def test_an_ambiguous_prefix_names_the_candidates(tmp_path: Path) -> None:
    first = put(tmp_path, 1)
    name = first.path.name.replace(first.digest[:12], first.digest[:6] + "ffffff")
    clone = first.path.with_name(name)
    clone.mkdir()
    (clone / "manifest.json").write_text((first.path / "manifest.json").read_text())
    with pytest.raises(ArtifactError, match="ambiguous"):
        resolve(tmp_path, first.digest[:6])


def test_the_wrong_kind_is_refused(tmp_path: Path) -> None:
    made = put(tmp_path, 1)
    with pytest.raises(ArtifactError, match="is a bench"):
        resolve(tmp_path, str(made.path), "plan")


def test_save_once_writes_once(tmp_path: Path) -> None:
    payload = BenchPayload(url="u", duration_s=1.0, seed=0, rows=[])
    first = save_once(tmp_path, Draft("bench", "s", payload, files={"f": b"1"}))
    second = save_once(tmp_path, Draft("bench", "s", payload, files={"f": b"1"}))
    assert first.path == second.path and len(entries(tmp_path)) == 1
    save_once(tmp_path, Draft("bench", "s", payload, files={"f": b"2"}))
    assert len(entries(tmp_path)) == 2


def test_lineage_walks_inputs_and_says_what_is_lost(tmp_path: Path) -> None:
    leaf = put(tmp_path, 1)
    file = InputRef(role="trace", kind="file", digest="a" * 64)
    lost = InputRef(role="gone", kind="bench", digest="b" * 64)
    middle = put(tmp_path, 2, inputs=(leaf.as_input("base"), file, lost))
    top = put(tmp_path, 3, inputs=(middle.as_input("middle"),))
    tree = lineage(tmp_path, top)
    assert [row.role for row in tree.inputs] == ["middle"]
    roles = {row.role: row for row in tree.inputs[0].inputs}
    assert roles["base"].artifact is not None and roles["base"].digest == leaf.digest
    assert roles["trace"].artifact is None and roles["trace"].problem == ""
    assert "no artifact with digest" in roles["gone"].problem
