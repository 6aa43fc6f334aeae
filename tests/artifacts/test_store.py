import errno
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgpu.artifacts import store
from hgpu.artifacts.digest import canonical_json, digest_of
from hgpu.artifacts.manifest import InputRef, manifest_digest
from hgpu.artifacts.payloads.bench import BenchPayload
from hgpu.artifacts.resolve import entries
from hgpu.artifacts.store import Draft, load, save
from hgpu.core.errors import ArtifactError, HgpuError


def draft(url: str = "http://x", **more: object) -> Draft[BenchPayload]:
    payload = BenchPayload(url=url, duration_s=1.0, seed=0, rows=[])
    return Draft("bench", "a slug/../with odd", payload, **more)  # type: ignore[arg-type]


def test_a_saved_artifact_loads_equal_and_its_folder_name_is_safe(tmp_path: Path) -> None:
    saved = save(
        tmp_path, draft(files={"samples.bin": b"abc"}), now=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    )
    assert saved.path.name == f"20260102T030405.000Z-a-slug-..-with-odd-{saved.digest[:12]}"
    assert saved.path.parent == tmp_path / "bench"
    assert load(saved.path) == load(saved.path / "manifest.json")
    assert load(saved.path).payload == saved.payload


def test_digest_depends_on_content_and_not_on_time_place_or_timings(tmp_path: Path) -> None:
    first = save(tmp_path / "a", draft(timings={"s": 1.0}), now=datetime(2026, 1, 1, tzinfo=UTC))
    second = save(tmp_path / "b", draft(timings={"s": 2.0}))
    assert first.digest == second.digest
    others = [
        draft(url="http://y"),
        draft(options={"x": 1}),
        draft(files={"f": b"1"}),
        draft(files={"f": b"2"}),
        draft(inputs=[InputRef(role="r", kind="file", digest="0" * 64)]),
    ]
    digests = {save(tmp_path / "c", other).digest for other in others}
    assert len(digests) == len(others) and first.digest not in digests


def test_order_of_inputs_and_files_does_not_change_the_digest(tmp_path: Path) -> None:
    a, b = (InputRef(role=r, kind="file", digest=r * 64) for r in "ab")
    one = save(tmp_path, draft(inputs=[a, b], files={"x": b"1", "y": b"2"}))
    two = save(tmp_path, draft(inputs=[b, a], files={"y": b"2", "x": b"1"}))
    assert one.digest == two.digest and one.path != two.path


LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)


@given(st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20))
def test_canonical_json_survives_a_round_trip(value: object) -> None:
    assert digest_of(json.loads(canonical_json(value))) == digest_of(value)


@pytest.mark.parametrize(
    "where", ["payload", "options", "inputs", "digest", "schema_version", "file", "no file"]
)
def test_any_edit_is_found_on_load(tmp_path: Path, where: str) -> None:
    saved = save(tmp_path, draft(files={"samples.bin": b"abc"}))
    path = saved.path / "manifest.json"
    document = json.loads(path.read_text())
    if where == "payload":
        document["payload"]["duration_s"] = 2.0
    elif where == "options":
        document["options"]["new"] = 1
    elif where == "inputs":
        document["inputs"].append({"role": "x", "kind": "file", "digest": "00"})
    elif where == "digest":
        document["digest"] = "0" * 64
    elif where == "schema_version":
        document["schema_version"] = 0
    elif where == "file":
        (saved.path / "samples.bin").write_bytes(b"abd")
    else:
        (saved.path / "samples.bin").unlink()
    path.write_text(json.dumps(document))
    with pytest.raises(ArtifactError) as caught:
        load(saved.path)
    assert "damaged" in caught.value.what and caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"kind": "bench"}', "\x00\xff"])
def test_a_broken_manifest_is_a_clear_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ArtifactError):
        load(tmp_path)


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = store.write_synced

    def full(path: Path, content: bytes) -> None:
        if path.name == "manifest.json":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, content)

    monkeypatch.setattr(store, "write_synced", full)
    with pytest.raises(HgpuError) as caught:
        save(tmp_path, draft(files={"samples.bin": b"abc"}))
    assert caught.value.lines()[1] == "why: No space left on device"
    assert caught.value.exit_code == 1
    assert list((tmp_path / "bench").iterdir()) == []


def test_kill_in_the_middle_leaves_no_artifact_and_the_next_save_sweeps(tmp_path: Path) -> None:
    script = f"""
import os, signal, sys
from pathlib import Path
from hgpu.artifacts import store
from tests_draft import draft
real = store.write_synced
def dying(path, content):
    if path.name == "manifest.json":
        os.kill(os.getpid(), signal.SIGKILL)
    real(path, content)
store.write_synced = dying
store.save(Path({str(tmp_path)!r}), draft())
"""
    helper = tmp_path / "tests_draft.py"
    helper.write_text(
        "from hgpu.artifacts.payloads.bench import BenchPayload\n"
        "from hgpu.artifacts.store import Draft\n"
        "def draft():\n"
        "    payload = BenchPayload(url='u', duration_s=1.0, seed=0, rows=[])\n"
        "    return Draft('bench', 's', payload, files={'samples.bin': b'abc'})\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert entries(tmp_path) == []
    assert len(list((tmp_path / "bench").glob(".tmp-*"))) == 1
    save(tmp_path, draft())
    assert len(entries(tmp_path)) == 1
    assert list((tmp_path / "bench").glob(".tmp-*")) == []


def test_an_artifact_of_a_newer_hgpu_is_refused_with_the_version_needed(tmp_path: Path) -> None:
    saved = save(tmp_path, draft())
    document = json.loads((saved.path / "manifest.json").read_text())
    document["schema_version"] += 1
    document["producer"]["version"] = "9.9.0"
    document["digest"] = manifest_digest(document)
    (saved.path / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(ArtifactError) as caught:
        load(saved.path)
    assert "schema version 2" in caught.value.what and "9.9.0" in caught.value.fix


@pytest.mark.parametrize("path", ["../outside", "/etc/hostname"])
def test_a_file_outside_of_the_artifact_is_refused(tmp_path: Path, path: str) -> None:
    saved = save(tmp_path, draft(files={"inside": b"x"}))
    (saved.path.parent / "outside").write_bytes(b"x")
    document = json.loads((saved.path / store.MANIFEST).read_text())
    document["files"][0]["path"] = path
    document["digest"] = manifest_digest(document)
    (saved.path / store.MANIFEST).write_text(json.dumps(document))
    with pytest.raises(ArtifactError, match="names a file outside of it"):
        load(saved.path)
