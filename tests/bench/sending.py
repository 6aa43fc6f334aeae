"""Sending a little load to a mock server, as several tests do."""

import subprocess
from pathlib import Path

from hgpu.bench.arrivals import Load, Schedule, schedule
from hgpu.bench.outcomes import Outcomes
from hgpu.bench.play import Job
from hgpu.bench.prompts import Wording
from hgpu.bench.target import Api, Target
from hgpu.bench.workers import send

IDS = Wording(1000, 9999)


def constant(rate_rps: float, requests: int, lengths: str = "fixed:16x4") -> Schedule:
    return schedule(Load("constant", requests / rate_rps, 0, rate_rps), lengths)


def sent(
    url: str,
    plan: Schedule,
    timeout_s: float = 30.0,
    workers: int = 1,
    api: Api = Api.COMPLETIONS,
    wording: Wording = IDS,
) -> Outcomes:
    return send(Job(Target(url, "mock", api, timeout_s), wording, plan, (1,)), workers)


def certificate(folder: Path) -> Path:
    """Write a certificate that nobody has signed but itself, with its key."""
    path, key = folder / "certificate.pem", folder / "key.pem"
    subject = ("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject, "-keyout", key, "-out", path],
        check=True,
        capture_output=True,
    )
    path.write_text(path.read_text() + key.read_text())
    return path
