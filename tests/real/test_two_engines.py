"""Two real vLLM engines in one engine's place: the same tokens, and no request lost where one dies."""

import json
import os
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from real.test_deploy_local import two_engines
from real.weights import write_weights

from hgpu.artifacts.store import Draft, save
from hgpu.core.errors import HgpuError
from hgpu.deploy.driver import DeployOptions
from hgpu.deploy.drivers import TARGETS
from hgpu.deploy.starts import shared_folder
from hgpu.deploy.state import Phase, State
from hgpu.deploy.state_file import state_folder
from hgpu.runtime.completion import complete
from hgpu.runtime.ports import local_url
from hgpu.runtime.tiny_model import VOCABULARY, make_tiny_model

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores"),
]

LOCAL = TARGETS["local"]
MODEL = "tiny-llama"
PROMPTS = (40, 129, 257, 300, 500, 700, 900)  # tokens: below a block, at its edges, beyond a step of 512
BLOCK = 128  # tokens, as vLLM chooses it on a CPU
ALONE = 'hgpu_router_answers_total{pool="tiny/prefill",status="200"}'
TOKENS = 12


@pytest.fixture
def deployed(tmp_path: Path) -> Iterator[State]:
    """Return the state of a pair on two cores, of a Llama whose tokens depend on all that it has read."""
    model = make_tiny_model(tmp_path / MODEL, hidden_size=256, layers=4, max_context_tokens=1024)
    write_weights(model)
    made = two_engines(model)
    (row,) = made.allocation
    engine = replace(row.point.engine, max_model_len=1024)
    point = replace(row.point, gpu="cpu-2core", engine=engine)
    row = row.model_copy(update={"gpu": "cpu-2core", "point": point, "count": 1, "engines": 1})
    payload = made.model_copy(update={"allocation": [row]})
    plan = save(tmp_path, Draft(kind="plan", slug="pair", payload=payload))
    options = DeployOptions(timeout_s=300, two_engines=True)
    try:
        yield LOCAL.apply(plan, tmp_path, options, print).state
    finally:
        for name in LOCAL.names(tmp_path):
            LOCAL.destroy(tmp_path, name)


def drawn(count: int, seed: int) -> list[int]:
    """Draw the tokens of a prompt."""
    tokens: list[int] = np.random.default_rng(seed).integers(300, VOCABULARY, count).tolist()
    return tokens


def answered(url: str, prompt: list[int], max_tokens: int = TOKENS) -> list[int]:
    """Return the tokens that a server answers greedily."""
    asked = {"model": MODEL, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True}
    body = json.dumps(asked | {"return_token_ids": True}).encode()
    request = urllib.request.Request(f"{url}/v1/completions", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        tokens: list[int] = json.load(answer)["choices"][0]["token_ids"]
    return tokens


def metrics(port: int) -> dict[str, float]:
    """Return a server's metrics, without the labels that name the only engine and the only model."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    rows = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    ours = f'{{engine="0",model_name="{MODEL}"}}'
    return {name.removesuffix(ours): float(value) for name, _, value in rows}


def handed_off(state: State, outcome: str) -> float:
    """Return how many hand-offs ended so, as the router counts them."""
    counts = metrics(state.slot("router").metrics_port or 0)
    return counts[f'hgpu_router_handoffs_total{{outcome="{outcome}",pool="tiny"}}']


def turned(path: Path) -> None:
    """Turn the signs of what a block's file holds."""
    from safetensors.numpy import load_file, save_file

    save_file({name: -layer for name, layer in load_file(path).items()}, path)


class Load:
    """Clients that ask one after another until they are told to stop; what they got, and what failed."""

    def __init__(self, url: str, clients: int) -> None:
        self._url, self._enough = url, threading.Event()
        self.served: list[int] = []
        self._more = threading.Semaphore(0)
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._ask, args=(client,)) for client in range(clients)]

    def _ask(self, client: int) -> None:
        number = 0
        while not self._enough.is_set():
            number += 1
            prompt = f"{client} {number} " + "for name in sorted(names): print(name)\n" * 24
            try:
                tokens = complete(self._url, MODEL, prompt, 6).tokens
                self.served.append(tokens)
                self._more.release()
            except HgpuError as error:
                self.failures.append(str(error))

    def more(self, count: int) -> None:
        """Wait until as many more have been served."""
        enough = len(self.served) + count
        while len(self.served) < enough and not self.failures:
            assert self._more.acquire(timeout=60), "nothing is served any more"

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._enough.set()
        for thread in self._threads:
            thread.join(120)


def back(root: Path, victim: int) -> None:
    """Wait until the supervisor has made the deployment whole again."""
    deadline = time.monotonic() + 240
    while True:
        (status,) = LOCAL.status(root)
        if status.phase is Phase.READY and victim not in [slot.pid for slot in status.slots]:
            return
        assert time.monotonic() < deadline, status
        time.sleep(0.2)  # nothing tells when another process's server is healthy


def test_the_same_tokens_from_two_engines_and_no_request_lost_with_one(
    deployed: State, tmp_path: Path
) -> None:
    front = str(deployed.front_url)
    prefill, decode = (deployed.slot(f"engine-0-{side}") for side in ("prefill", "decode"))
    hits, queries = "vllm:external_prefix_cache_hits_total", "vllm:external_prefix_cache_queries_total"

    # The same tokens as from one engine, and most of their prompts came from the other.
    prompts = [drawn(count, seed) for seed, count in enumerate(PROMPTS)]
    paired = [answered(front, prompt) for prompt in prompts]
    assert paired == [answered(local_url(prefill.port), prompt) for prompt in prompts]
    counts = metrics(decode.port)
    assert counts[hits] == sum((count - 1) // BLOCK * BLOCK for count in PROMPTS)
    print(f"external KV hits: {counts[hits]:.0f} of {counts[queries]:.0f} tokens")
    assert handed_off(deployed, "done") == len(PROMPTS) - 1  # the shortest isn't worth it

    # What is loaded is what counts: with other blocks the decode engine says something else.
    shared = shared_folder(state_folder(tmp_path, deployed.name)) / "pool-tiny"
    known = set(shared.iterdir())
    other = drawn(700, 100)
    expected = answered(local_url(prefill.port), other)
    made = sorted(set(shared.iterdir()) - known)
    assert len(made) == 700 // BLOCK
    for path in made:
        turned(path)
    assert answered(local_url(decode.port), other) != expected

    # What can't be loaded is computed.
    other, known = drawn(700, 101), set(shared.iterdir())
    expected = answered(local_url(prefill.port), other)
    for path in set(shared.iterdir()) - known:
        path.write_bytes(path.read_bytes()[:1000])
    assert answered(local_url(decode.port), other) == expected

    # One engine dies under load, and the other goes on alone.
    with Load(front, clients=2) as load:
        complete(front, MODEL, "a request beside the load", 2)
        psutil.Process(prefill.pid).kill()
        killed_s = time.monotonic()
        load.more(50)
        alone_s = time.monotonic() - killed_s
    assert load.failures == []
    print(f"50 requests served within {alone_s:.1f} s of the prefill engine's death")
    assert handed_off(deployed, "failed") + handed_off(deployed, "unhealthy") > 0

    # It comes back, and is used again.
    back(tmp_path, prefill.pid or 0)
    print(f"whole again {time.monotonic() - killed_s:.0f} s after that death")
    done = handed_off(deployed, "done")
    deadline = time.monotonic() + 20  # for the router's own probe
    while handed_off(deployed, "done") == done:
        assert answered(front, prompts[-1]) == paired[-1]
        assert time.monotonic() < deadline

    # The other dies, and the first goes on alone.
    psutil.Process(decode.pid).kill()
    assert answered(front, other) == expected
    assert metrics(deployed.slot("router").metrics_port or 0)[ALONE] == 1
