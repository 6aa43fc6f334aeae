import asyncio
from collections.abc import Callable

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.parser import text_string_to_metric_families
from runtime.control.cases import controlled
from runtime.control.engine_metrics import Engine, serving

from hgpu.core.errors import InputError
from hgpu.runtime.control.endpoint import Deployments, address_of, app_of
from hgpu.runtime.control.loop import Loop, Rules
from hgpu.runtime.control.sources import Reader, Source
from hgpu.runtime.control.watch import Watch

KNOWN = Deployments(
    'a "model"',
    {("default", "chat-l4"): "L4", ("default", "chat-a100"): "A100-80GB"},
    {("default", "chat-t4"): "it has no latency model"},
)


class Clock:
    """Time that a test sets."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, int]], Loop]:
    demand, pools = controlled(tmp_path_factory.mktemp("results"))

    def made(answering: dict[str, int]) -> Loop:
        return Loop(demand, pools, [answering[pool.name] for pool in pools], Rules())

    return made


def watching(
    start: Callable[[dict[str, int]], Loop], *urls: tuple[str, str]
) -> tuple[Watch, Clock, list[str]]:
    clock, lines = Clock(), list[str]()
    reader = Reader([Source(pool, f"{url}/metrics") for pool, url in urls])
    return Watch(reader, start, lines.append, clock), clock, lines


async def get(watch: Watch, path: str) -> tuple[int, str]:
    async with TestClient(TestServer(app_of(watch, KNOWN))) as client:
        answer = await client.get(path)
        return answer.status, await answer.text()


async def look_twice(watch: Watch, clock: Clock, *engines: Engine) -> None:
    async with ClientSession() as session:
        assert await watch.look(session) is None
        clock.now_s += 30.0
        for engine in engines:
            engine.metrics.end(60, 500, 50)
        assert await watch.look(session) is not None


def test_the_counts_are_served_as_aibrix_reads_them(start: Callable[[dict[str, int]], Loop]) -> None:
    """Its reader takes the last word of the first line that isn't a comment and holds the metric's name."""
    l4, a100 = Engine(), Engine()

    async def course(*urls: str) -> None:
        watch, clock, _ = watching(start, ("L4", urls[0]), ("A100-80GB", urls[1]))
        assert (await get(watch, "/metrics/default/chat-l4"))[0] == 503
        await look_twice(watch, clock, l4, a100)
        assert watch.decision is not None and watch.loop is not None
        for pool, deployment in zip(watch.loop.pools, ("chat-l4", "chat-a100"), strict=True):
            status, text = await get(watch, f"/metrics/default/{deployment}")
            lines = [line for line in text.splitlines() if "vllm:deployment_replicas" in line]
            first = next(line for line in lines if not line.startswith("#"))
            wanted = watch.decision.engines[watch.loop.pools.index(pool)] * 100
            assert status == 200 and float(first.split()[-1]) == wanted
            (family,) = text_string_to_metric_families(text)
            assert family.samples[0].labels == {"model_name": 'a "model"'}
        assert watch.decision.rate_rps == pytest.approx(4.0)
        assert (await get(watch, "/healthz"))[0] == 200

    with serving(l4) as one, serving(a100) as other:
        asyncio.run(course(one, other))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/metrics/default/other", "no deployment default/other"),
        ("/metrics/elsewhere/chat-l4", "no deployment elsewhere/chat-l4"),
        ("/metrics/default/chat-t4", "no latency model"),
    ],
)
def test_what_is_unknown_or_unprofiled_gets_no_number(
    start: Callable[[dict[str, int]], Loop], path: str, words: str
) -> None:
    l4, a100 = Engine(), Engine()

    async def course(*urls: str) -> None:
        watch, clock, _ = watching(start, ("L4", urls[0]), ("A100-80GB", urls[1]))
        await look_twice(watch, clock, l4, a100)
        status, text = await get(watch, path)
        assert status == 404 and words in text and "deployment_replicas" not in text

    with serving(l4) as one, serving(a100) as other:
        asyncio.run(course(one, other))


def test_the_last_decision_stands_when_the_load_cannot_be_read(
    start: Callable[[dict[str, int]], Loop],
) -> None:
    l4, a100 = Engine(), Engine()

    async def course(*urls: str) -> None:
        watch, clock, lines = watching(start, ("L4", urls[0]), ("A100-80GB", urls[1]))
        await look_twice(watch, clock, l4, a100)
        before = await get(watch, "/metrics/default/chat-l4")
        l4.status = a100.status = 500
        clock.now_s += 90.0
        async with ClientSession() as session:
            assert await watch.look(session) is None
        assert await get(watch, "/metrics/default/chat-l4") == before
        own = {
            f.name: f.samples[0].value
            for f in text_string_to_metric_families((await get(watch, "/metrics"))[1])
        }
        assert own["hgpu_autoscale_failures"] == 1 and own["hgpu_autoscale_readings"] == 2
        assert own["hgpu_autoscale_data_age_seconds"] == 90
        assert any("answered 500" in line for line in lines)

    with serving(l4) as one, serving(a100) as other:
        asyncio.run(course(one, other))


def test_one_silent_engine_is_not_ready_and_the_others_are_read(
    start: Callable[[dict[str, int]], Loop],
) -> None:
    l4, a100 = Engine(), Engine()

    async def course(*urls: str) -> None:
        watch, clock, _ = watching(start, ("L4", urls[0]), ("A100-80GB", urls[1]))
        await look_twice(watch, clock, l4, a100)
        a100.status = 500
        clock.now_s += 30.0
        async with ClientSession() as session:
            assert await watch.look(session) is not None
        assert watch.answering == {"L4": 1, "A100-80GB": 0} and len(watch.silent) == 1

    with serving(l4) as one, serving(a100) as other:
        asyncio.run(course(one, other))


def test_an_engine_that_is_silent_at_first_is_not_taken_away(
    start: Callable[[dict[str, int]], Loop],
) -> None:
    l4, a100 = Engine(), Engine()

    async def course(*urls: str) -> None:
        watch, clock, _ = watching(start, ("L4", urls[0]), ("A100-80GB", urls[1]))
        a100.status = 500
        await look_twice(watch, clock, l4)
        assert watch.decision is not None and watch.answering["A100-80GB"] == 0
        assert (await get(watch, "/metrics/default/chat-a100"))[1].split()[-1] == "100"

    with serving(l4) as one, serving(a100) as other:
        asyncio.run(course(one, other))


def test_an_error_that_nobody_foresaw_does_not_end_the_watch(
    start: Callable[[dict[str, int]], Loop],
) -> None:
    """The first decision fails in the loop itself; the watch goes on and decides later."""
    l4, a100 = Engine(), Engine()
    broken = [True]

    def start_late(answering: dict[str, int]) -> Loop:
        if broken.pop() if broken else False:
            raise ValueError("nobody foresaw this")
        return start(answering)

    async def course(*urls: str) -> None:
        watch, clock, lines = watching(start_late, ("L4", urls[0]), ("A100-80GB", urls[1]))
        decided = asyncio.Event()

        def say(line: str) -> None:
            lines.append(line)
            clock.now_s += 30.0
            if "to carry" in line:
                decided.set()

        watch.say = say
        async with ClientSession() as session:
            task = asyncio.create_task(watch.forever(session, 0.0))
            await decided.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert watch.failures == 1 and "nobody foresaw this" in lines[0]
        assert watch.decision is not None

    with serving(l4) as one, serving(a100) as other:
        asyncio.run(course(one, other))


def test_an_address_to_listen_on() -> None:
    assert address_of("127.0.0.1:8080") == ("127.0.0.1", 8080)
    assert address_of("[::1]:0") == ("::1", 0)
    for text in ("8080", ":8080", "host:", "host:99999"):
        with pytest.raises(InputError):
            address_of(text)
