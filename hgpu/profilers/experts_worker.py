"""The process that records routing: `python -m hgpu.profilers.experts_worker ORDER.json`.

Like `vllm_worker` it holds the engine and dies with its parent; it says events on the standard output, and
leaves a record a batch size and a report in its order's folder.
"""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from hgpu.core.errors import EngineError, HgpuError, InputError
from hgpu.profilers import vllm_host
from hgpu.profilers.copy_speed import copy_speed, expert_bytes
from hgpu.profilers.die_with import die_with
from hgpu.profilers.experts import REPORT_FILE
from hgpu.profilers.routing_hooks import RoutingRecorder
from hgpu.profilers.vllm_worker import own_stdout, reason_of, say


def main(file: str) -> int:
    """Carry an order out; return the exit status."""
    events = own_stdout()
    order = json.loads(Path(file).read_text(encoding="utf-8"))
    die_with(order["parent_pid"])
    try:
        if order["cores"]:
            os.sched_setaffinity(0, order["cores"])  # before vLLM: threads and processes inherit it
        record(order, events)
    except HgpuError as error:
        say(events, {"error": [error.what, error.why, error.fix], "input": isinstance(error, InputError)})
        return 1
    say(events, {"finished": True})
    return 0


def record(order: dict[str, Any], events: TextIO) -> None:
    """Start the engine, record each batch size, and measure how fast an expert is copied."""
    vllm_host.require_vllm()
    from vllm import LLM

    say(events, {"done": 0, "total": 0, "at": "starting vLLM"})
    llm = LLM(
        **order["arguments"],
        enable_prefix_caching=False,
        async_scheduling=False,
        disable_log_stats=True,
        seed=order["seed"],
    )
    recorder = RoutingRecorder(llm)
    prompts = _tokenized(llm, order["prompts"], order["tokens"])
    folder = Path(order["folder"])
    for number, batch in enumerate(order["batches"]):
        say(events, {"begins": [f"batch {batch}", 0]})
        say(events, {"done": number, "total": len(order["batches"]), "at": f"batch {batch}"})
        _play(llm, recorder, prompts, batch, order)
        (folder / f"{batch}.npz").write_bytes(recorder.taken().to_npz())
    (folder / REPORT_FILE).write_text(json.dumps(_report(recorder.layers[0][0])), encoding="utf-8")


def _report(layer: Any) -> dict[str, Any]:
    """Return what of the result isn't a record."""
    driver, machine = vllm_host.driver_and_machine()
    return {
        "experts": int(layer.moe_config.num_experts),
        "copies": asdict(copy_speed(expert_bytes(layer))),
        "engine": vllm_host.vllm_version(),
        "driver": driver,
        "machine": machine,
    }


def _tokenized(llm: Any, prompts: Sequence[str], tokens: int) -> list[list[int]]:
    tokenizer, longest = llm.get_tokenizer(), llm.llm_engine.vllm_config.model_config.max_model_len
    rows: list[list[int]] = [list(tokenizer.encode(prompt)) for prompt in prompts]
    for number, row in enumerate(rows):
        if not 0 < len(row) <= longest - tokens:
            raise InputError(
                f"prompt {number} has {len(row)} tokens",
                f"with {tokens} more it doesn't fit max_model_len {longest}",
                "cut the prompt, or ask for fewer tokens",
            )
    return rows


def _play(
    llm: Any, recorder: RoutingRecorder, prompts: Sequence[Sequence[int]], batch: int, order: dict[str, Any]
) -> None:
    """Keep `batch` prompts running until there are none to fill it."""
    from vllm import SamplingParams

    sampling = SamplingParams(
        temperature=order["temperature"], max_tokens=order["tokens"], ignore_eos=True, detokenize=False
    )
    engine, joined, running = llm.llm_engine, 0, set[str]()
    while joined < len(prompts) or len(running) == batch:
        while joined < len(prompts) and len(running) < batch:
            name = str(joined)
            engine.add_request(name, {"prompt_token_ids": list(prompts[joined])}, sampling)
            running.add(name)
            joined += 1
        outputs = _step(engine)
        recorder.end_step()
        running -= {output.request_id for output in outputs if output.finished}
    engine.abort_request(list(running))


def _step(engine: Any) -> Any:
    try:
        return engine.step()
    except HgpuError:
        raise
    except Exception as error:
        raise EngineError("vLLM failed at a step", reason_of(error)) from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
