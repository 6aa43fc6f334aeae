"""A server that fails in every known way: the load ends, and says what was wrong."""

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from bench.sending import certificate, constant, sent

from hgpu.bench.arrivals import Load, schedule
from hgpu.bench.exchange import kind_of
from hgpu.bench.mock_process import mock_server
from hgpu.runtime.ports import free_ports, local_url

KINDS = {
    "429": "HTTP 429",
    "500": "HTTP 500",
    "stall": "timeout",
    "half": "timeout",
    "count": "output tokens",
    "drop": "closed early",
    "error": "server error",
}


@pytest.mark.parametrize("fault", KINDS)
def test_every_fault_ends_and_has_a_name(fault: str) -> None:
    with mock_server("--fault", fault, "--every", "4") as url:
        begun = time.monotonic()
        outcomes = sent(url, constant(50.0, 20), timeout_s=1.0)
        assert time.monotonic() - begun < 10
    assert Counter(map(kind_of, outcomes.error)) == {"": 15, KINDS[fault]: 5}
    good = outcomes.good
    assert (outcomes.output_tokens[good] == 4).all() and (outcomes.first_s[good] > 0).all()


def test_a_server_that_dies_costs_what_comes_after_it() -> None:
    with mock_server("--fault", "die", "--every", "10") as url:
        outcomes = sent(url, constant(50.0, 20), timeout_s=5.0)
    kinds = Counter(map(kind_of, outcomes.error))
    assert kinds[""] >= 8 and set(kinds) <= {"", "closed early", "connect"} and outcomes.requests == 20


@contextmanager
def hanging_up() -> Iterator[str]:
    """A server that accepts every connection and closes it."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    server.accept()[0].close()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield local_url(server.getsockname()[1])
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_a_server_that_hangs_up_is_not_waited_for() -> None:
    with hanging_up() as url:
        begun = time.monotonic()
        outcomes = sent(url, constant(100.0, 30), timeout_s=20.0)
        assert time.monotonic() - begun < 10
    assert set(map(kind_of, outcomes.error)) == {"closed early"} and outcomes.requests == 30


def test_a_closed_loop_does_not_storm_a_server_that_is_not_there() -> None:
    plan = schedule(Load("closed", 0.5, 0, concurrency=4), "fixed:16x4")
    outcomes = sent(local_url(free_ports(1)[0]), plan)
    assert set(map(kind_of, outcomes.error)) == {"connect"} and 4 <= outcomes.requests <= 40


def test_a_certificate_that_nobody_signed_is_refused_and_one_that_is_known_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem = certificate(tmp_path)
    with mock_server("--certificate", str(pem)) as url:
        outcomes = sent(url, constant(50.0, 3))
        assert set(map(kind_of, outcomes.error)) == {"TLS"} and "self-signed" in outcomes.error[0]
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
        assert sent(url, constant(50.0, 3)).good.all()


def test_connections_that_the_server_closed_meanwhile_cost_nothing() -> None:
    with mock_server("--fault", "drop", "--every", "2") as url:
        outcomes = sent(url, constant(0.8, 2))
    # The second goes out on the connection of the first, idle for 1.25 s; it drops, and a new one is made.
    assert outcomes.good.all() and np.all(outcomes.output_tokens == 4)
