"""Results of a machine, once they are here: unpacked with distrust, checked, and taken into the store.

Whoever may write to the bucket could have put them there, so nothing leaves the folder that they are
unpacked to, and only profiles of what was asked for are taken.
"""

import re
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from hgpu.artifacts.adopt import adopt
from hgpu.artifacts.digest import file_digest
from hgpu.artifacts.payloads.profile import ProfilePayload
from hgpu.artifacts.store import MANIFEST, Artifact, load
from hgpu.core.errors import EngineError, HgpuError
from hgpu.core.provenance import Provenance
from hgpu.deploy.cloud.bucket import LARGEST_BYTES, Bucket, MachineStatus
from hgpu.deploy.cloud.job import CloudJob
from hgpu.deploy.cloud.script import ARTIFACTS, LOG
from hgpu.deploy.cloud.state import JobState
from hgpu.profilers.last_words import last_words

Profile = Artifact[ProfilePayload]
_MEMBER = re.compile(r"profile/(?P<folder>[A-Za-z0-9][A-Za-z0-9._-]*)/(?P<file>[A-Za-z0-9][A-Za-z0-9._-]*)")
MOST_FILES = 1000


def brought_home(
    job: CloudJob, state: JobState, status: MachineStatus, bucket: Bucket, folder: Path, root: Path
) -> list[Profile]:
    """Fetch what a machine sent, and take its profiles into the store under `root`; its log goes to `folder`.

    Raises HgpuError where the artifacts were damaged or are not those that were asked for.
    """
    if f"{state.folder}{LOG}" in bucket.names(state.folder):
        bucket.fetch(f"{state.folder}{LOG}", folder / LOG)
    if not status.sha256:
        return []
    packed = folder / ARTIFACTS
    unpacked = folder / "unpacked"
    bucket.fetch(f"{state.folder}{ARTIFACTS}", packed)
    try:
        if file_digest(packed) != status.sha256:
            raise HgpuError(
                f"what {job.machine.instance_type} sent is not what it has measured",
                f"{ARTIFACTS} in the bucket has another digest than its machine says",
                "see who else writes there, and profile again",
            )
        return [_taken(job, path, root) for path in _unpacked(packed, unpacked)]
    finally:
        packed.unlink(missing_ok=True)
        shutil.rmtree(unpacked, ignore_errors=True)


def failure(
    job: CloudJob, status: MachineStatus, taken: Sequence[Profile], folder: Path
) -> EngineError | None:
    """Return why a machine didn't measure all that it should; None where it did."""
    there = {profile.payload.point for profile in taken}
    missing = [point.name for point in job.points if point not in there]
    if not missing and status.rc == 0:
        return None
    minutes = job.options.deadline_min
    late = (
        " and was stopped before its deadline" if status.step == "profile" and status.rc in (124, 137) else ""
    )
    return EngineError(
        f"{job.machine.instance_type} did not profile {', '.join(missing) or 'to its end'}",
        f"its step '{status.step}' ended with exit code {status.rc}{late}: {last_words(folder / LOG)}",
        f"see '{folder / LOG}'" + (f"; --deadline was {minutes} minutes" if late else ""),
    )


def _unpacked(packed: Path, target: Path) -> list[Path]:
    """Return the folders of a tar file's artifacts, written below `target`; nothing else is read."""
    shutil.rmtree(target, ignore_errors=True)
    folders = set()
    try:
        with tarfile.open(packed, "r:gz") as tar:
            for member, match in _members(tar):
                path = target / match["folder"]
                path.mkdir(parents=True, exist_ok=True)
                stream = tar.extractfile(member)
                assert stream is not None  # it is a regular file
                (path / match["file"]).write_bytes(stream.read())
                folders.add(path)
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise HgpuError("what a machine sent can't be unpacked", str(error), "profile again") from error
    return sorted(path for path in folders if (path / MANIFEST).is_file())


def _members(tar: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, re.Match[str]]]:
    left_bytes = LARGEST_BYTES
    for number, member in enumerate(tar):
        left_bytes -= max(member.size, 0)
        if number >= MOST_FILES or left_bytes < 0:
            raise tarfile.TarError("it holds more than profiles can")
        match = _MEMBER.fullmatch(member.name)
        if match and member.isreg():
            yield member, match


def _taken(job: CloudJob, path: Path, root: Path) -> Profile:
    found = load(path)
    if found.manifest.kind != "profile" or not _was_asked_for(job, found):
        raise HgpuError(
            f"{job.machine.instance_type} sent a {found.manifest.kind} that nobody asked for",
            f"{path.name} is of another model, operating point or setting",
            "see who else writes to the bucket, and profile again",
        )
    return adopt(root, path)


def _was_asked_for(job: CloudJob, found: Profile) -> bool:
    payload, options = found.payload, found.manifest.options
    asked = {"repeats": job.settings.repeats, "load_format": job.settings.load_format}
    return (
        payload.model.digest == job.model.digest
        and payload.point in job.points
        and payload.provenance is Provenance.MEASURED
        and options == asked
    )
