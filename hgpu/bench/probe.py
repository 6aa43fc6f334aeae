"""What a server has to be asked before prompts of an exact length can be written for it."""

import time

import numpy as np

from hgpu.bench.arrivals import Schedule
from hgpu.bench.exchange import SERVER_ERROR
from hgpu.bench.outcomes import Outcomes
from hgpu.bench.play import Job, play
from hgpu.bench.prompts import Wording
from hgpu.bench.target import Api, Target
from hgpu.core.errors import InvalidMeasurement

# Highest token ids that are tried, in turn; a vocabulary that is larger serves as well with these.
_HIGH_IDS = (30000, 15000, 7500, 3000, 1500, 700, 300)
_SHORT, _LONG = 16, 80  # letters


def wording_for(target: Target) -> Wording:
    """Return what prompts for a server are written with.

    For completions it finds token ids that the server knows, by one request or a few. For chat it measures
    what the template adds, by two; raises InvalidMeasurement where letters aren't tokens there. A server
    that fails otherwise is not judged here: the load will show it.
    """
    return _letters(target) if target.api is Api.CHAT else _ids(target)


def _ids(target: Target) -> Wording:
    for high_id in _HIGH_IDS:
        wanted = Wording(min(1000, high_id // 2), high_id)
        error = _ask(target, Wording(high_id - 1, high_id), 4).error[0]
        if not _refuses(error):
            return wanted
    raise InvalidMeasurement(
        f"{target.url} refuses prompts of token ids", error, "try --api chat, or see the server's log"
    )


def _refuses(error: str) -> bool:
    """Tell whether a server doesn't know an id. vLLM says so in the stream, with status 200 before it."""
    said_in_stream = error.startswith(SERVER_ERROR) and ("vocab" in error or "400" in error)
    return said_in_stream or error.startswith(("HTTP 400", "HTTP 422"))


def _letters(target: Target) -> Wording:
    counts = [int(_ask(target, Wording(), letters).input_tokens[0]) for letters in (_SHORT, _LONG)]
    if not all(counts):
        return Wording()
    if counts[1] - counts[0] != _LONG - _SHORT:
        raise InvalidMeasurement(
            f"prompts of exact length can't be written for {target.model}",
            f"{_SHORT} letters are {counts[0]} tokens and {_LONG} are {counts[1]}: some aren't one token",
            "use --api completions, which sends token ids",
        )
    return Wording(template_tokens=counts[0] - _SHORT)


def _ask(target: Target, wording: Wording, tokens: int) -> Outcomes:
    one = Schedule(np.zeros(1), np.array([tokens]), np.array([1]), 0.0)
    return play(Job(target, wording, one, (tokens,)), time.monotonic())
