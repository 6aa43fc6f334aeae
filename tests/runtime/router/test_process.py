"""The command `hgpu router`: what it refuses, and that it ends when asked."""

import os
import signal
import subprocess
import sys

import pytest
from runtime.router.routed import row

from hgpu.artifacts.store import Draft, save
from hgpu.bench.mock_process import mock_server
from hgpu.core.errors import InputError
from hgpu.runtime.completion import complete
from hgpu.runtime.router.following import Followed
from hgpu.runtime.router.process import Listen, run_router
from hgpu.runtime.router.router import RouterOptions
from hgpu.runtime.router.table import Table
from hgpu.runtime.router.urls import urls_of

KEY = "canary-77aa"


@pytest.mark.parametrize(
    "words",
    [
        ["a"],
        ["a=ftp://x:1"],
        ["a=http://"],
        ["a=http://x:y"],
        ["a=http://x/v1"],
        ["a=http://x:1", "a=http://x:2"],
    ],
)
def test_bad_pools_are_named(words):
    with pytest.raises(InputError, match="bad pool"):
        urls_of(words)


@pytest.mark.parametrize("urls", [{}, {"a": "http://x:1", "c": "http://x:2"}])
def test_pools_must_be_those_of_the_plan(urls):
    with pytest.raises(InputError, match="don't match"):
        Followed(Table("ab", (1, 1), [row({"a": 1.0})]), urls)


def test_without_a_key_it_stays_on_this_machine():
    plan = Followed(Table("a", (1,), []), {"a": "http://x:1"})
    with pytest.raises(InputError, match="no API key"):
        run_router(lambda: plan, RouterOptions(), Listen("0.0.0.0"), None, print)


def test_the_command_routes_and_drains_and_never_says_its_key(tmp_path, monkeypatch):
    from deploy.deploy_standin import payload
    from deploy.deploy_standin import row as pool_row

    plan = save(tmp_path, Draft("plan", "chat", payload(pool_row("a"), pool_row("b"))))
    monkeypatch.setenv("HGPU_API_KEY", KEY)
    with mock_server() as url:
        words = [sys.executable, "-m", "hgpu", "router", str(plan.path), "--port", "0"]
        words += ["--pool", f"a={url}", "--pool", f"b={url}", "--metrics-port", "0"]
        process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
        try:
            said = process.stderr.readline()
            assert said.startswith("routing on http://127.0.0.1:")
            front = said.split()[-1]
            for _ in range(4):
                assert complete(front, "mock", "hello", 3).tokens == 3
            process.send_signal(signal.SIGTERM)
            rest = process.communicate(timeout=30)[1]
            assert process.returncode == 0
            assert KEY not in said + rest
        finally:
            process.kill()
            process.wait()
