import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hgpu.core.errors import EngineError
from hgpu.runtime.completion import complete, served_model
from hgpu.runtime.health import Server, ServerDied, is_healthy, wait_healthy
from hgpu.runtime.ports import free_ports, local_url


class Scripted(BaseHTTPRequestHandler):
    """Answers with the server's `answers[path]`, a (status, body) pair; keeps what it was asked."""

    def log_message(self, *args): ...

    def do_GET(self):
        status, body = self.server.answers.get(self.path, (404, b"nothing here"))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        self.server.asked.append((dict(self.headers), json.loads(self.rfile.read(length))))
        self.do_GET()


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Scripted) as made:
        made.answers, made.asked, made.url = {}, [], local_url(made.server_port)
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def events(*documents, end=b"data: [DONE]\n\n"):
    return b"".join(b": ping\n\ndata: %s\n\n" % json.dumps(one).encode() for one in documents) + end


WORD = {"choices": [{"text": "a"}]}
USAGE = {"choices": [], "usage": {"completion_tokens": 2}}


def test_only_200_is_healthy(server):
    for status, healthy in ((200, True), (503, False), (404, False)):
        server.answers["/health"] = (status, b"")
        assert is_healthy(server.url) is healthy
    assert not is_healthy(local_url(free_ports(1)[0]))


def test_waits_for_all_and_reports_each(server, tmp_path):
    server.answers["/health"] = (503, b"")
    looks = iter(range(5))

    def alive():
        if next(looks, None) is None:
            server.answers["/health"] = (200, b"")
        return True

    up = []
    servers = [Server(name, server.url, tmp_path / "log", alive) for name in ("a", "b")]
    wait_healthy(servers, 10, up.append)
    assert sorted(up) == ["a", "b"]


def test_a_stranger_on_the_port_is_not_our_health(server, tmp_path):
    server.answers["/health"] = (200, b"")
    ours = Server("a", server.url, tmp_path / "log", lambda: True, owns_port=lambda: False)
    with pytest.raises(EngineError, match="a is not healthy after"):
        wait_healthy([ours], 0.3)


def test_death_ends_the_wait_for_all(server, tmp_path):
    (tmp_path / "b.log").write_text("OSError: [Errno 98] Address already in use\n")
    waiting = Server("a", local_url(free_ports(1)[0]), tmp_path / "a.log", lambda: True)
    dead = Server("b", server.url, tmp_path / "b.log", lambda: False)
    with pytest.raises(ServerDied) as caught:
        wait_healthy([waiting, dead], 60)
    assert (caught.value.server, caught.value.port_taken) == ("b", True)
    assert "b.log" in caught.value.fix


def test_completion_is_streamed_and_counted_by_the_server(server, monkeypatch):
    monkeypatch.setenv("VLLM_API_KEY", "k")
    server.answers = {
        "/v1/models": (200, b'{"data": [{"id": "m"}]}'),
        "/v1/completions": (200, events(WORD, WORD, USAGE)),
    }
    done = complete(server.url, served_model(server.url), "hi", 2)
    assert (done.text, done.tokens) == ("aa", 2)
    assert 0 < done.ttft_s <= done.seconds
    ((headers, request),) = server.asked
    assert headers["Authorization"] == "Bearer k"
    assert (request["model"], request["max_tokens"], request["stream"]) == ("m", 2, True)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((401, b"Unauthorized"), "HGPU_API_KEY"),
        ((500, b"dead"), "answered 500"),
        ((200, events(WORD, {"error": "boom"})), "boom"),
        ((200, events()), "no token"),
        ((200, events(WORD, end=b"")), "no token"),
        ((200, b"data: {oops\n\n"), "not JSON"),
        ((200, b"data: []\n\n"), "not a JSON object"),
    ],
)
def test_bad_completions_are_errors(server, answer, message):
    server.answers["/v1/completions"] = answer
    with pytest.raises(EngineError, match=message):
        complete(server.url, "m", "hi", 2)


def test_nobody_there_is_an_error():
    with pytest.raises(EngineError, match="refused"):
        served_model(local_url(free_ports(1)[0]))


@pytest.mark.parametrize("body", [b'{"data": []}', b'{"object": "error"}'])
def test_no_model_is_an_error(server, body):
    server.answers["/v1/models"] = (200, body)
    with pytest.raises(EngineError, match="serves no model"):
        served_model(server.url)
