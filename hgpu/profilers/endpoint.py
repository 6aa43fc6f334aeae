"""Profiling any OpenAI-compatible server by its URL (vLLM, SGLang, llama.cpp server, …).

The scripts of `design` are played by a client that streams completions; see `endpoint_play` for
what a client sees of a step. The samples hold what the server adds to a step (HTTP, tokens sent),
and the fixed cost of a request is measured beside them. Each finished point is journaled.
"""

import asyncio
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING, Any

from hgpu.artifacts.digest import digest_of
from hgpu.core.errors import EngineError, InputError
from hgpu.core.model import ModelSpec
from hgpu.core.operating_point import OperatingPoint
from hgpu.core.provenance import Provenance
from hgpu.profilers.design import Script, design
from hgpu.profilers.endpoint_play import Player
from hgpu.profilers.journal import Header, Journal, Run, append, read
from hgpu.profilers.result import ProfileResult
from hgpu.profilers.samples import merge_steps, noise_of
from hgpu.profilers.vllm_process import Progress

if TYPE_CHECKING:
    import aiohttp

HEARTBEAT_S = 0.005
REQUEST_REPEATS = 5
NOISE_LIMIT = 0.15
_CACHE = re.compile(r"^vllm:cache_config_info\{(.*)\}", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class EndpointJob:
    """A server, and what is said to run behind it.

    The engine options of `point` must be the server's own: a client can't ask for them.
    `kv_capacity_tokens` is needed where the server's /metrics don't tell it.
    """

    url: str
    model: ModelSpec
    point: OperatingPoint
    repeats: int = 3
    decode_steps: int = 8
    setup_tokens: int = 1024
    kv_capacity_tokens: int | None = None

    @property
    def key(self) -> str:
        """Digest of everything that the measurement depends on."""
        return digest_of({**asdict(self), "model": self.model.digest})

    @property
    def scripts(self) -> list[Script]:
        """The batches to play."""
        return design(self.point.engine, self.setup_tokens, self.decode_steps)

    def journal(self, folder: Path) -> Path:
        """Where the finished points are kept."""
        return folder / "journal" / f"endpoint-{self.key[:12]}.jsonl"


def profile_endpoint(job: EndpointJob, folder: Path, progress: Progress) -> ProfileResult:
    """Play the job's scripts against its server; what is in the journal isn't played again.

    Raises EngineError where the server can't be reached, InvalidMeasurement where it misbehaves, and
    InputError where its KV capacity is unknown.
    """
    began_s = time.monotonic()
    path = job.journal(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    request_s, lag_s = asyncio.run(_measure(job, path, progress))
    return _result(read(path, job.key), request_s, lag_s, time.monotonic() - began_s)


async def _measure(job: EndpointJob, path: Path, progress: Progress) -> tuple[float, float]:
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, connect=10)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        _header(job, path, await _engine(session, job.url), await _kv_capacity(session, job))
        player = Player(
            session,
            job.url,
            await _served_model(session, job.url),
            job.model.vocab_size,
            job.point.engine.max_model_len,
            job.point.engine.max_num_batched_tokens,
            SystemRandom(),  # a prompt sent twice, also by an earlier run, would hit the prefix cache
        )
        await player.play(Script("warm-up", decode_seqs=2, decode_context=16, decode_steps=2))
        request_s = await player.measure_request_s(REQUEST_REPEATS)
        lags: list[float] = []
        heart = asyncio.ensure_future(_heartbeat(lags))
        try:
            await _play_missing(job, path, player, progress)
        finally:
            heart.cancel()
        return request_s, sorted(lags)[int(0.99 * (len(lags) - 1))] if lags else 0.0


async def _play_missing(job: EndpointJob, path: Path, player: Player, progress: Progress) -> None:
    done = read(path, job.key).points
    points = [(script, repeat) for repeat in range(job.repeats) for script in job.scripts]
    for number, (script, repeat) in enumerate(points, start=1):
        if (script.name, repeat) not in done:
            append(path, Run(script.name, repeat, tuple(await player.play(script))))
        progress(number, len(points), script.name)


async def _heartbeat(lags: list[float]) -> None:
    """Record how late this process wakes up: the harness's own lag."""
    while True:
        due = time.perf_counter() + HEARTBEAT_S
        await asyncio.sleep(HEARTBEAT_S)
        lags.append(max(0.0, time.perf_counter() - due))


def _header(job: EndpointJob, path: Path, engine: str, kv_capacity_tokens: int) -> None:
    if read(path, job.key).header is None:
        append(path, Header(job.key, engine, "", job.url, kv_capacity_tokens, job.setup_tokens))


async def _get(session: "aiohttp.ClientSession", url: str, path: str) -> str | None:
    """Return the text of a page, None where the server has no such page."""
    import aiohttp

    try:
        async with session.get(f"{url}{path}") as response:
            return await response.text() if response.status == 200 else None
    except (aiohttp.ClientError, TimeoutError) as error:
        raise EngineError(
            f"can't reach {url}", str(error) or type(error).__name__, "check the URL"
        ) from error


async def _engine(session: "aiohttp.ClientSession", url: str) -> str:
    page = await _get(session, url, "/version")
    found = re.search(r'"version"\s*:\s*"([^"]+)"', page or "")
    return f"vllm {found.group(1)}" if found else "OpenAI-compatible server"


async def _served_model(session: "aiohttp.ClientSession", url: str) -> str:
    import json

    page = await _get(session, url, "/v1/models")
    try:
        document: Any = json.loads(page or "")
        return str(document["data"][0]["id"])
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise EngineError(
            f"{url} serves no model", "/v1/models lists none", "give an OpenAI-compatible URL"
        ) from error


async def _kv_capacity(session: "aiohttp.ClientSession", job: EndpointJob) -> int:
    if job.kv_capacity_tokens is not None:
        return job.kv_capacity_tokens
    found = _CACHE.search(await _get(session, job.url, "/metrics") or "")
    labels = dict(re.findall(r'(\w+)="([^"]*)"', found.group(1))) if found else {}
    try:
        return int(labels["num_gpu_blocks"]) * int(labels["block_size"])
    except (KeyError, ValueError) as error:
        raise InputError(
            f"how many tokens the KV cache of {job.url} holds isn't known",
            "its /metrics have no vllm:cache_config_info",
            "give it with --kv-tokens",
        ) from error


def _result(journal: Journal, request_s: float, lag_s: float, seconds: float) -> ProfileResult:
    assert journal.header is not None
    names = dict.fromkeys(run.script for run in journal.runs)
    samples = [
        sample
        for name in names
        for sample in merge_steps(name, [run.steps for run in journal.runs if run.script == name])
    ]
    noise = noise_of(samples)
    problems = (
        [f"repeated steps differ by {noise:.0%} (median): the machine was busy"]
        if noise > NOISE_LIMIT
        else []
    )
    return ProfileResult(
        profiler="endpoint",
        provenance=Provenance.MEASURED,
        samples=tuple(samples),
        kv_capacity_tokens=journal.header.kv_capacity_tokens,
        engine=journal.header.engine,
        seconds=seconds,
        problems=tuple(problems),
        assumptions={"request_s": request_s, "harness_lag_p99_s": lag_s},
    )
