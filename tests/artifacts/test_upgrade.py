import pytest

from hgpu.artifacts.kinds import KINDS
from hgpu.artifacts.upgrade import UPGRADES, Document, upgraded
from hgpu.core.errors import ArtifactError


def rename(document: Document) -> Document:
    payload = dict(document["payload"])
    payload["ttft_s"] = payload.pop("ttft")
    return {**document, "payload": payload}


def double(document: Document) -> Document:
    return {**document, "payload": {**document["payload"], "ttft_s": document["payload"]["ttft_s"] * 2}}


STEPS = {("bench", 1): rename, ("bench", 2): double}


def test_an_older_document_climbs_the_whole_chain_and_stays_itself() -> None:
    old = {"kind": "bench", "schema_version": 1, "payload": {"ttft": 1.0}}
    new = upgraded(old, 3, STEPS)
    assert new == {"kind": "bench", "schema_version": 3, "payload": {"ttft_s": 2.0}}
    assert old == {"kind": "bench", "schema_version": 1, "payload": {"ttft": 1.0}}


def test_a_current_document_is_left_alone() -> None:
    document = {"kind": "bench", "schema_version": 3, "payload": {}}
    assert upgraded(document, 3, STEPS) is document


def test_a_newer_document_is_refused_with_the_version_that_is_needed() -> None:
    with pytest.raises(ArtifactError) as caught:
        upgraded({"kind": "bench", "schema_version": 9, "producer": {"version": "7.2"}}, 3, STEPS)
    assert "version 9" in caught.value.what and "7.2" in caught.value.fix and caught.value.exit_code == 2


def test_a_gap_in_the_chain_is_an_error() -> None:
    with pytest.raises(ArtifactError, match="no way to read"):
        upgraded({"kind": "bench", "schema_version": 0, "payload": {}}, 3, STEPS)


def test_every_kind_has_a_way_up_from_version_one() -> None:
    for kind in KINDS.values():
        for version in range(1, kind.version):
            assert (kind.name, version) in UPGRADES
