"""Stands in for an engine in lifecycle tests: answers what hgpu asks of one. Usage: PORT [flag ...]."""

import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Engine(BaseHTTPRequestHandler):
    flags: tuple[str, ...] = ()

    def log_message(self, *args):
        pass

    def do_GET(self):
        if self.path == "/health":
            self.answer(b"", status=503 if "sick" in self.flags else 200)
        elif self.allowed():
            self.answer(json.dumps({"data": [{"id": "stand-in"}]}).encode())

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        count = asked["max_tokens"]
        if not self.allowed():
            return
        if "slow" in self.flags:
            time.sleep(0.05)
        if "broken" in self.flags:
            self.answer(b'data: {"error": "engine dead"}\n\n', "text/event-stream")
            return
        if not asked.get("stream"):
            self.answer(json.dumps({"choices": [{"text": " word" * count}]}).encode())
            return
        chunks = [{"choices": [{"text": " word"}]}] * count
        chunks.append({"choices": [], "usage": {"completion_tokens": count}})
        lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
        self.answer("".join([*lines, "data: [DONE]\n\n"]).encode(), "text/event-stream")

    def allowed(self):
        key = os.environ.get("VLLM_API_KEY")
        if not key or self.headers.get("Authorization") == f"Bearer {key}":
            return True
        self.answer(b'{"error": "Unauthorized"}', status=401)
        return False

    def answer(self, body, kind="application/json", status=200):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main(port, *flags):
    if "die" in flags:
        raise ValueError("no such model")
    if "tell" in flags:
        raise ValueError(f"401 for {os.environ['HF_TOKEN']} with {os.environ['VLLM_API_KEY']}")
    if "child" in flags:  # outlives a killed parent, as vLLM's core does
        subprocess.Popen([sys.executable, "-S", "-E", "-c", "import time; time.sleep(600)"])
    if "stubborn" in flags:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Engine.flags = flags
    ThreadingHTTPServer(("127.0.0.1", int(port)), Engine).serve_forever()


main(*sys.argv[1:])
