"""Sending a trace as it is, once: what `verify` and the prediction benchmark need of the generator."""

from hgpu.bench.arrivals import replayed
from hgpu.bench.outcomes import Outcomes
from hgpu.bench.play import Job
from hgpu.bench.prompts import Wording
from hgpu.bench.target import Target
from hgpu.bench.workers import Say, send
from hgpu.workloads.trace import Trace

_FIRST_ID = 256  # below it are special tokens and raw bytes


def run_load(
    url: str, model: str, trace: Trace, vocab_size: int, seed: int, finished: Say = lambda _: None
) -> Outcomes:
    """Send a trace to `url` and return what came of each of its requests, in their order.

    Prompts are random token ids of exactly the trace's lengths; outputs are forced to theirs.
    """
    wording = Wording(min(_FIRST_ID, vocab_size // 2), vocab_size)
    job = Job(Target(url.rstrip("/"), model), wording, replayed(trace, None, None), (seed,))
    return send(job, 1, finished)
