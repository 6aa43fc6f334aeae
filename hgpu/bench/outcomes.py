"""What came of the requests of a load, in columns: what workers hand back and what is stored."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hgpu.bench.exchange import Exchange
from hgpu.workloads.trace import Floats, Ints


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """An entry a request; moments are seconds since the start of the load.

    `first_s` and `end_s` are those of the first and the last token, 0 where none came. `gaps_s` holds all
    gaps between text chunks, of all requests, in no order. Tokens are the server's count.
    """

    number: Ints
    intended_s: Floats
    sent_s: Floats
    first_s: Floats
    end_s: Floats
    input_tokens: Ints
    output_tokens: Ints
    longest_gap_s: Floats
    error: tuple[str, ...]
    gaps_s: Floats

    @property
    def requests(self) -> int:
        """How many were sent."""
        return len(self.number)

    @property
    def good(self) -> npt.NDArray[np.bool_]:
        """Which of them had no error."""
        return np.array([not error for error in self.error], np.bool_)

    @property
    def ttft_s(self) -> Floats:
        """From the intended send to the first token."""
        return self.first_s - self.intended_s

    @property
    def e2e_s(self) -> Floats:
        """From the intended send to the last token."""
        return self.end_s - self.intended_s

    @property
    def tpot_s(self) -> Floats:
        """(end − first token)/(output tokens − 1); 0 where there is one token only."""
        return (self.end_s - self.first_s) / np.maximum(self.output_tokens - 1, 1)

    @property
    def lag_s(self) -> Floats:
        """How late the harness itself was."""
        return self.sent_s - self.intended_s


def outcomes_of(ended: Sequence[Exchange], gaps_s: "array[float]", started_s: float) -> Outcomes:
    """Return the columns of exchanges that have ended, by their number."""
    rows = sorted(ended, key=lambda exchange: exchange.number)

    def since_start(moments_s: list[float]) -> Floats:
        moments = np.array(moments_s, np.float64)
        return np.where(moments > 0, moments - started_s, 0.0)

    return Outcomes(
        np.array([row.number for row in rows], np.int64),
        np.array([row.intended_s - started_s for row in rows], np.float64),
        since_start([row.sent_s for row in rows]),
        since_start([row.first_s for row in rows]),
        since_start([row.last_s for row in rows]),
        np.array([row.input_tokens for row in rows], np.int64),
        np.array([row.output_tokens for row in rows], np.int64),
        np.array([row.longest_gap_s for row in rows], np.float64),
        tuple(row.error for row in rows),
        np.frombuffer(gaps_s, np.float64) if gaps_s else np.zeros(0),
    )


def merged(parts: Sequence[Outcomes]) -> Outcomes:
    """Return the outcomes of several workers as one, by the number of the request."""
    number = np.concatenate([part.number for part in parts])
    order = np.argsort(number, kind="stable")

    def column(name: str) -> npt.NDArray[np.generic]:
        joined: npt.NDArray[np.generic] = np.concatenate([getattr(part, name) for part in parts])[order]
        return joined

    errors = [error for part in parts for error in part.error]
    names = ("number", "intended_s", "sent_s", "first_s", "end_s", "input_tokens", "output_tokens")
    columns: dict[str, npt.NDArray[np.generic]] = {name: column(name) for name in (*names, "longest_gap_s")}
    return Outcomes(
        **columns,  # type: ignore[arg-type]
        error=tuple(errors[at] for at in order),
        gaps_s=np.concatenate([part.gaps_s for part in parts]),
    )
