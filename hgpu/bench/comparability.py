"""What must be the same for two arms to be compared."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from hgpu.artifacts.digest import canonical_json
from hgpu.artifacts.payloads.comparison import KeyMismatch
from hgpu.artifacts.payloads.load import LoadPayload
from hgpu.core.errors import UnknownName

Keys = Mapping[str, str]
VARYING = ("workload",)  # may differ between runs (by seed) as long as both arms have the same ones


@dataclass(frozen=True, slots=True)
class Common:
    """What both arms share by key, what differs, and which keys no run tells."""

    shared: dict[str, str]
    mismatches: list[KeyMismatch]
    unknown: list[str]

    @property
    def refused(self) -> list[KeyMismatch]:
        """Differences that the user didn't accept."""
        return [row for row in self.mismatches if not row.allowed]


def load_keys(payload: LoadPayload) -> dict[str, str]:
    """Return a load test's comparability, with its objectives and the names of its points."""
    slo = canonical_json({} if payload.slo is None else _objectives(payload)).decode()
    points = ", ".join(sorted({point.name for point in payload.points}))
    return {**payload.comparability, "slo": slo, "points": points}


def common(base: Sequence[Keys], head: Sequence[Keys], allow: Collection[str] = ()) -> Common:
    """Set the keys of two arms side by side; what one run tells and another doesn't is a difference.

    Raises UnknownName for an allowed key that no run has.
    """
    names = sorted({name for keys in (*base, *head) for name in keys})
    for name in allow:
        if name not in names:
            raise UnknownName("comparability key", name, names)
    shared: dict[str, str] = {}
    mismatches: list[KeyMismatch] = []
    unknown: list[str] = []
    for name in names:
        left, right = ([keys.get(name, "") for keys in arm] for arm in (base, head))
        if not _fits(name, left, right):
            mismatches.append(
                KeyMismatch(key=name, base=sorted(set(left)), head=sorted(set(right)), allowed=name in allow)
            )
        elif left[0]:
            shared[name] = ", ".join(sorted(set(left)))
        else:
            unknown.append(name)
    return Common(shared, mismatches, unknown)


def _fits(name: str, left: Sequence[str], right: Sequence[str]) -> bool:
    if name in VARYING:
        return sorted(set(left)) == sorted(set(right))
    return len({*left, *right}) == 1


def _objectives(payload: LoadPayload) -> dict[str, list[float]]:
    rows = {name: getattr(payload.slo, name) for name in ("ttft", "tpot", "e2e")}
    return {name: [row.limit_s, row.percentile] for name, row in rows.items() if row is not None}
