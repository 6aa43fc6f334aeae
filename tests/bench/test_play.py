"""What is sent is what was planned, and what is reported is what happened."""

import json
import urllib.request

import numpy as np
import pytest
from bench.sending import constant, sent

from hgpu.bench.arrivals import Load, Schedule, schedule
from hgpu.bench.mock_process import mock_server
from hgpu.bench.prompts import Wording
from hgpu.bench.target import Api, Target
from hgpu.core.errors import InputError


def asked(url: str, path: str) -> object:
    with urllib.request.urlopen(url + path, timeout=10) as response:
        return json.load(response)


@pytest.mark.parametrize(("first_ms", "jitter_ms"), [(0, 0), (20, 0), (200, 0), (20, 20)])
def test_reported_ttft_is_the_servers_own(first_ms: int, jitter_ms: int) -> None:
    """Coarse, for a busy machine, which only ever adds; `benchmarks/load/accuracy.py` has the strict one."""
    with mock_server("--first-ms", str(first_ms), "--jitter-ms", str(jitter_ms)) as url:
        outcomes = sent(url, constant(50.0, 100))
        delays_s = asked(url, "/mock/delays")["first_s"]
    assert outcomes.good.all() and len(delays_s) == 100
    reported_s, told_s = np.quantile(outcomes.ttft_s, 0.1), np.quantile(delays_s, 0.1)
    assert 0 <= reported_s - told_s < 0.003 + 0.02 * told_s


def test_gaps_and_ends_are_the_servers() -> None:
    with mock_server("--first-ms", "5", "--gap-ms", "20") as url:
        outcomes = sent(url, constant(50.0, 20, "fixed:16x6"))
    assert len(outcomes.gaps_s) == 20 * 5 and np.median(outcomes.gaps_s) == pytest.approx(0.02, abs=0.004)
    assert np.median(outcomes.tpot_s) == pytest.approx(0.02, abs=0.004)
    assert (outcomes.longest_gap_s >= outcomes.tpot_s - 1e-9).all()
    assert np.median(outcomes.e2e_s) == pytest.approx(0.105, abs=0.02)


def test_several_workers_send_each_request_once_at_its_moment() -> None:
    plan = constant(100.0, 60)
    with mock_server("--first-ms", "5") as url:
        outcomes = sent(url, plan, workers=3)
        assert asked(url, "/mock/delays")["requests"] == 60
    assert outcomes.good.all() and outcomes.number.tolist() == list(range(60))
    assert np.allclose(outcomes.intended_s, plan.intended_s, atol=1e-6)
    assert np.median(outcomes.lag_s) < 0.02


@pytest.mark.parametrize("workers", [1, 2])
def test_a_closed_loop_keeps_so_many_in_flight(workers: int) -> None:
    plan = schedule(Load("closed", 0.6, 0, concurrency=6), "fixed:16x4")
    with mock_server("--first-ms", "100") as url:
        outcomes = sent(url, plan, workers=workers)
    assert outcomes.good.all() and 18 <= outcomes.requests <= 36
    inside = [(outcomes.sent_s <= t) & (outcomes.end_s > t) for t in np.linspace(0.1, 0.5, 20)]
    assert max(int(each.sum()) for each in inside) <= 6 and np.median([each.sum() for each in inside]) >= 5


def test_blocks_of_a_trace_reach_the_server_as_equal_tokens() -> None:
    tokens = np.array([40, 40, 40])
    blocks = ((1, 2), (1, 2), (1, 3))
    plan = Schedule(np.array([0.0, 0.05, 0.1]), tokens, np.full(3, 2), 0.1, blocks=blocks, block_tokens=16)
    with mock_server() as url:
        assert sent(url, plan).good.all()
        bodies = [json.loads(body)["prompt"] for body in asked(url, "/mock/prompts")]
    assert bodies[0][:32] == bodies[1][:32] and bodies[0][32:] != bodies[1][32:]
    assert bodies[0][:16] == bodies[2][:16] and bodies[0][16:32] != bodies[2][16:32]


def test_a_chat_prompt_has_the_tokens_that_were_asked_for() -> None:
    with mock_server("--template-tokens", "9") as url:
        exact = sent(url, constant(50.0, 5), api=Api.CHAT, wording=Wording(template_tokens=9))
        wrong = sent(url, constant(50.0, 5), api=Api.CHAT, wording=Wording(template_tokens=7))
        body = json.loads(asked(url, "/mock/prompts")[0])
    assert exact.good.all() and (exact.input_tokens == 16).all()
    assert all(error.startswith("prompt tokens: sent 16, the server counted 18") for error in wrong.error)
    assert body["messages"][0]["role"] == "user" and body["stream_options"] == {"include_usage": True}


def test_the_api_key_travels_in_the_head_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HGPU_API_KEY", "s3cret")
    target = Target("https://host:8443/base/", 'a "model"', Api.CHAT)
    assert b"Authorization: Bearer s3cret\r\n" in target.head()
    assert target.head().startswith(b"POST /base/v1/chat/completions HTTP/1.1\r\nHost: host:8443\r\n")
    assert "s3cret" not in repr(target) and b"s3cret" not in b"".join(target.body())
    before, after, rest = target.body()
    assert json.loads(before + b" a b" + after + b"3" + rest)["model"] == 'a "model"'


@pytest.mark.parametrize("url", ["host:80", "ftp://x", "http://", "http://x:99999"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(InputError):
        Target(url, "m")
