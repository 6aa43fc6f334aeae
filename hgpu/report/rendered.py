"""What a dry run of `hgpu deploy` wrote, in the terminal and as JSON."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from hgpu.deploy.render.write import Written
from hgpu.report.output import console, table


def print_rendered(target: str, out: Path, written: Sequence[Written], command: str) -> None:
    """Print each file and whether it was checked, and how to apply them."""
    rows = table(f"{target}: {len(written)} files in {out}", "file", "checked")
    for row in written:
        rows.add_row(Text(str(row.path.relative_to(out))), Text(row.unchecked or "yes"))
    console().print(rows)
    console().print(f"apply them: {command}", soft_wrap=True, markup=False)


def rendered_json(target: str, out: Path, written: Sequence[Written]) -> dict[str, Any]:
    """Return the same as data; `note` says why a file wasn't checked."""
    files = [
        {"path": str(row.path), "checked": not row.unchecked, "note": row.unchecked or None}
        for row in written
    ]
    return {"target": target, "out": str(out), "files": files}
