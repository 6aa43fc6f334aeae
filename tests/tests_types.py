"""Types that test modules share."""

import subprocess
from typing import Protocol


class Run(Protocol):
    """Runs the program with words and environment, and returns what it did."""

    def __call__(
        self, *words: str, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]: ...
