"""What `hgpu bench compare` calls: resolve both arms and the history, compare, save, write the files."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hgpu.artifacts.manifest import Validity
from hgpu.artifacts.payloads.comparison import ComparisonPayload, Verdict
from hgpu.artifacts.resolve import entries, resolve, resolve_all
from hgpu.artifacts.store import Artifact, Draft, load, save
from hgpu.bench.compare import compare
from hgpu.bench.judging import GateOptions
from hgpu.core.errors import InputError
from hgpu.report.comparison_files import comparison_junit, comparison_markdown
from hgpu.report.output import note

SUMMARY = "GITHUB_STEP_SUMMARY"  # where GitHub's runners want Markdown to be appended


def compared(
    root: Path,
    base: Sequence[str],
    head: Sequence[str],
    options: GateOptions,
    history: Path,
    kind: str | None,
) -> Artifact[ComparisonPayload]:
    """Compare what the refs of both arms mean, and keep what came of it."""
    kind = kind or _kind_told(root, [*_names(base), *_names(head)])
    arms = {role: artifacts_of(root, refs, role, kind) for role, refs in (("base", base), ("head", head))}
    payload = compare(arms["base"], arms["head"], options, past_comparisons(history))
    inputs = [artifact.as_input(role) for role, arm in arms.items() for artifact in arm]
    valid = payload.verdict is not Verdict.INVALID
    return save(
        root,
        Draft(
            "comparison",
            f"{payload.compares}-{payload.verdict}",
            payload,
            inputs=inputs,
            validity=Validity(valid=valid, reasons=[] if valid else payload.reasons),
        ),
    )


def artifacts_of(root: Path, refs: Sequence[str], role: str, kind: str | None = None) -> list[Artifact[Any]]:
    """Return the artifacts of refs, each of which may be several with commas between.

    `kind` is what `@name` and `latest` are looked up as. Raises InputError where there is no ref.
    """
    names = _names(refs)
    if not names:
        raise InputError(f"no {role} given", "it is a path, a digest prefix or an @ref", "see `hgpu list`")
    found = [made for name in names for made in resolve_all(root, name, None if _tells(name) else kind)]
    if "latest" in names:
        note(f"{role} has latest: {', '.join(f'{made.manifest.kind} {made.short}' for made in found)}")
    return found


def _names(refs: Sequence[str]) -> list[str]:
    return [name for ref in refs for name in ref.split(",") if name]


def _tells(name: str) -> bool:
    """Tell whether a name means one artifact whatever the kind, which `@name` and `latest` don't."""
    return not name.startswith("@") and name != "latest"


def _kind_told(root: Path, names: Sequence[str]) -> str | None:
    telling = next((name for name in names if _tells(name)), None)
    return resolve(root, telling).manifest.kind if telling else None


def past_comparisons(root: Path) -> list[ComparisonPayload]:
    """Return the comparisons kept under a folder, each once, oldest first."""
    found = {(made := load(entry.path)).digest: made for entry in reversed(entries(root, "comparison"))}
    return [artifact.payload for artifact in found.values()]


def tolerances_of(words: Sequence[str]) -> dict[str, float]:
    """Return the tolerances in words as `ttft_p99=0.15` or `ttft_p99=15%`. Raises InputError."""
    found = {}
    for word in words:
        name, _, text = word.partition("=")
        try:
            value = float(text.removesuffix("%")) / (100.0 if text.endswith("%") else 1.0)
        except ValueError:
            value = -1.0
        if not 0.0 <= value < 1.0:
            raise InputError(
                f"'{word}' is no tolerance", "it reads METRIC=PART, a part from 0 to 1", "try ttft_p99=0.15"
            )
        found[name] = value
    return found


def write_files(payload: ComparisonPayload, markdown: Path | None, junit: Path | None) -> None:
    """Write the files that were asked for, and the summary of the CI step where there is one."""
    text = comparison_markdown(payload)
    if markdown is not None:
        markdown.write_text(text, encoding="utf-8")
    if junit is not None:
        junit.write_text(comparison_junit(payload), encoding="utf-8")
    summary = os.environ.get(SUMMARY)
    if summary:
        with Path(summary).open("a", encoding="utf-8") as stream:
            stream.write(text + "\n")
