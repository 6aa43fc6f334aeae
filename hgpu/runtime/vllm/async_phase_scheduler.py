"""The phase scheduler over vLLM's asynchronous one. Imported by vLLM only; never yet run on a GPU.

A step is scheduled while the one before it runs, so the slack that it sees is a step old.
"""

from vllm.v1.core.sched.async_scheduler import AsyncScheduler

from hgpu.runtime.vllm.phase_scheduler import Phased


class AsyncPhaseScheduler(Phased, AsyncScheduler):  # type: ignore[misc]  # as PhaseScheduler
    """The phase scheduler of an engine that schedules the next step while one runs."""

    asynchronous = True
