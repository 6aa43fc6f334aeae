"""The measuring process with a stand-in for vLLM, which fails where the environment says.

HGPU_STANDIN maps lengths of prompts to faults, as JSON: an engine that is given such a prompt has the
fault. "any" is any prompt after the warm-up and `HGPU_STANDIN_AFTER` scripts, "start" the start.
HGPU_STANDIN_STARTS is a file that gains a line at every start. HGPU_STANDIN_CARD holds what its card
tells otherwise than a sound one; without it there is none.
"""

import json
import os
import signal
import sys
import threading
from pathlib import Path

from standin_nvml import NvmlCard, install

from hgpu.core.errors import EngineError
from hgpu.core.step import StepBatch, prefill_batch
from hgpu.profilers import vllm_engine, vllm_host, vllm_worker
from hgpu.profilers.journal import Header
from hgpu.profilers.vllm_job import WorkerJob, warm_ups

BUDGET_TOKENS = 128
CARD = NvmlCard(**json.loads(os.environ.get("HGPU_STANDIN_CARD", "{}")))
FAULTS = json.loads(os.environ["HGPU_STANDIN"])


class StandIn:
    """Takes microseconds a token; prompts are prefilled one after the other, decodes wait for them."""

    kv_capacity_tokens = 16_384

    def __init__(self) -> None:
        self.waiting: list[int] = []
        self.running: list[int] = []
        self.seconds_of = 1e-6
        self.played = 0

    def add(self, prompt_tokens: int) -> None:
        self.waiting.append(prompt_tokens)
        any_fault = FAULTS.get("any") if self.played >= sound_scripts() else None
        self.fail(FAULTS.get(str(prompt_tokens), any_fault))

    def fail(self, fault: str | None) -> None:
        if fault == "out of memory":
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee documentation.")
        if fault == "refuses":
            raise EngineError("vLLM computed nothing in 100 steps", "no room")
        if fault == "hangs":
            threading.Event().wait()
        if fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "exits":
            print("RuntimeError: NCCL error", file=sys.stderr, flush=True)
            os._exit(3)
        if fault == "memory error":
            CARD.ecc += 1
        if fault in ("nan", "0", "-1", "inf"):
            self.seconds_of = float(fault)

    def step(self) -> tuple[StepBatch, float]:
        if not self.waiting:
            seqs, context = len(self.running), sum(self.running)
            return StepBatch(decode_seqs=seqs, decode_context_tokens=context), self.seconds_of * (seqs + 9)
        new = min(self.waiting[0], BUDGET_TOKENS)
        self.waiting[0] -= new
        if not self.waiting[0]:
            self.waiting.pop(0)
            self.running.append(new)
        return prefill_batch(new), self.seconds_of * (new + 9)

    def clear(self) -> None:
        self.waiting, self.running = [], []
        self.played += 1
        self.seconds_of *= 1.3 if self.played % 2 else 1 / 1.3  # noise, for repeats to be worth it


def sound_scripts() -> int:
    """Scripts that are played before "any" fault comes: the warm-up, and as many as the test says."""
    job = WorkerJob(**json.loads(Path(sys.argv[-1]).read_text()))
    header = Header("", "", "", "", StandIn.kv_capacity_tokens, 0)
    return len(warm_ups(job, header)) + int(os.environ.get("HGPU_STANDIN_AFTER", "0"))


def start_engine(*_: object) -> StandIn:
    with Path(os.environ["HGPU_STANDIN_STARTS"]).open("a") as starts:
        starts.write(f"{os.getpid()}\n")
    StandIn().fail(FAULTS.get("start"))
    return StandIn()


if __name__ == "__main__":
    vllm_host.require_vllm = lambda: None
    vllm_host.vllm_version = lambda: "vllm stand-in"
    vllm_host.driver_and_machine = lambda: ("", "a machine")
    vllm_engine.start_engine = start_engine
    install(setattr, [CARD])
    vllm_host.visible_devices = lambda: "0" if "HGPU_STANDIN_CARD" in os.environ else None
    if FAULTS.get("start") == "chatters":
        print("Warning: not an event", flush=True)
    sys.exit(vllm_worker.main(sys.argv[-1]))
