"""One error for several jobs, some of which failed."""

from collections.abc import Mapping, Sequence

from hgpu.artifacts.payloads.profile import ProfilePayload
from hgpu.artifacts.store import Artifact
from hgpu.core.errors import EngineError, HgpuError, InputError
from hgpu.report.output import note


def raise_failed(
    errors: Mapping[str, HgpuError], jobs: int, saved: Sequence[Artifact[ProfilePayload]]
) -> None:
    """Raise one error for all of some jobs that failed, and say what is saved nevertheless."""
    if not errors:
        return
    for artifact in saved:
        note(f"{artifact.payload.point.name}: saved {artifact.short}")
    if jobs == 1:
        raise next(iter(errors.values()))
    bad_input = all(isinstance(error, InputError) for error in errors.values())
    raise (InputError if bad_input else EngineError)(
        f"{len(errors)} of {jobs} profiles failed: {', '.join(errors)}",
        "; ".join(dict.fromkeys(f"{error.what}: {error.why}" for error in errors.values())),
        "; ".join(dict.fromkeys(error.fix for error in errors.values() if error.fix)),
    )
