"""Progress on stderr: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hgpu.report.output import note

Progress = Callable[[int, int, str], None]
QUIET_S = 10.0  # between lines where nobody watches


@contextmanager
def progress_of(title: str) -> Iterator[Progress]:
    """Yield a function of (done, total, what) that shows how far a long job is."""
    if not sys.stderr.isatty():
        yield _lines(title)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.fields[title]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", title=title, total=None)
        yield lambda done, total, what: bar.update(task, completed=done, total=total, description=what)


def _lines(title: str) -> Progress:
    said_at = -QUIET_S

    def say(done: int, total: int, what: str) -> None:
        nonlocal said_at
        now = time.monotonic()
        if now - said_at >= QUIET_S or done == total:
            said_at = now
            note(f"{title}: {done}/{total} {what}")

    return say
