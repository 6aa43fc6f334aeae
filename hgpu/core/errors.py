"""The errors that a user can meet.

HgpuError                 exit 1   something broke; says what, why and what to do
├── InputError            exit 2   a bad spec, config, trace, artifact or argument
│   ├── UnknownName       exit 2   a name that no registry knows; lists the nearest
│   └── ArtifactError     exit 2   an artifact that is missing, damaged or too new
├── Infeasible            exit 3   no allocation meets the objectives; names the binding constraint
├── InvalidMeasurement    exit 4   measured, but not to be believed
└── EngineError           exit 1   an engine, router or child process failed
"""

import difflib
from collections.abc import Iterable

from hgpu.core.secrets import without_secrets


class HgpuError(Exception):
    """An error for the user: three short lines, no traceback."""

    exit_code = 1

    def __init__(self, what: str, why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.fix = fix

    def lines(self) -> list[str]:
        """Return the lines to print: what happened, why, and what to do.

        They may quote a log or an answer, so the environment's secrets are taken out.
        """
        pairs = (("error", self.what), ("why", self.why), ("fix", self.fix))
        return [f"{label}: {without_secrets(text)}" for label, text in pairs if text]

    def __str__(self) -> str:
        return "; ".join(self.lines())


class InputError(HgpuError):
    """Something that the user gave can't be used."""

    exit_code = 2


class UnknownName(InputError):
    """A name that a registry doesn't hold; the message lists what it knows."""

    def __init__(self, noun: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name.lower(), [n.lower() for n in names], n=3, cutoff=0.4)
        nearest = [n for low in near for n in names if n.lower() == low]
        fix = f"did you mean {', '.join(nearest)}?" if nearest else "use one of the known names"
        if names:
            super().__init__(f"unknown {noun} '{name}'", f"known: {', '.join(names)}", fix)
        else:
            super().__init__(
                f"unknown {noun} '{name}'", "there is none at all", "check where it is looked for"
            )
        self.nearest = nearest


class ArtifactError(InputError):
    """An artifact that can't be found, read or trusted."""


class Infeasible(HgpuError):
    """No allocation meets the objectives."""

    exit_code = 3


class InvalidMeasurement(HgpuError):
    """A measurement that broke its own validity rules."""

    exit_code = 4


class EngineError(HgpuError):
    """An engine, a router or another child process failed."""
