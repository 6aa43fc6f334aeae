"""Jobs, a fleet that waits for nothing, and machines that have measured as soon as anybody looks."""

import io
import json
import re
import tarfile
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from machine_room import machines, script_of

from hgpu.artifacts.store import save
from hgpu.catalog.models import load_model
from hgpu.catalog.offers import load_offers
from hgpu.core.provenance import Provenance
from hgpu.core.step import prefill_batch
from hgpu.deploy.cloud.fanout import Fleet
from hgpu.deploy.cloud.job import Settings
from hgpu.deploy.cloud.jobs import cloud_jobs
from hgpu.deploy.cloud.options import CloudOptions, Install, Store
from hgpu.deploy.cloud.types import cloud_types
from hgpu.deploy.ec2.options import Waits
from hgpu.latency.select import profile_draft
from hgpu.profilers.result import ProfileResult
from hgpu.profilers.samples import merge_steps
from hgpu.specs.serve import ServeSpec
from hgpu.specs.service import service_of

MODEL = "meta-llama/Llama-3.2-1B"
SPEC = {
    "kind": "serve",
    "model": MODEL,
    "workload": {"lengths": "chat", "rate_rps": 8},
    "slo": {"tpot_ms": 120},
    "gpus": ["L4", "A10G", "L40S"],
}
INSTALL = "hgpu @ https://example.org/hgpu-1.0-py3-none-any.whl"
SETTINGS = Settings(3, 300.0, "auto", 900.0)
WAITS = Waits(health_s=5.0, poll_s=0.01, visible_s=0.05)
NOW = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
LIVING = ("pending", "running", "stopping", "stopped", "shutting-down")
BUCKET = "results"


def options(**changes):
    return CloudOptions(**{"store": Store(BUCKET), "install": Install(INSTALL), **changes})


def jobs(*types, spec=None, settings=SETTINGS, **changes):
    made = ServeSpec.model_validate({**SPEC, **(spec or {})})
    found = cloud_types([f"aws:{name}" for name in types], load_offers(), None)
    return cloud_jobs(made, service_of(made), found, settings, options(**changes))


def fleet(moto, ec2=None, s3=None, **changes):
    ec2, s3 = ec2 or moto.client(), s3 or moto.client(service="s3")
    reached = {"ec2": lambda: lambda _: ec2, "s3": lambda: lambda _: s3}
    return Fleet(**{"waits": WAITS, "now": lambda: NOW, **reached, **changes})


def silent(_text):
    """No progress."""


def living(client):
    """The machines that run, as EC2 says."""
    return [row["InstanceId"] for row in machines(client, *LIVING)]


def objects(client):
    return [row["Key"] for row in client.list_objects_v2(Bucket=BUCKET).get("Contents", [])]


def result(seconds=0.25):
    steps = [((prefill_batch(16), seconds), (prefill_batch(32), 2 * seconds))]
    return ProfileResult("vllm", Provenance.MEASURED, tuple(merge_steps("a", steps)), 4096, "vllm stand-in")


def packed(points, model=MODEL, **changes):
    """What a machine packs that has measured some points: the bytes of a tar file."""
    chosen = {"repeats": SETTINGS.repeats, "load_format": SETTINGS.load_format, **changes}
    with tempfile.TemporaryDirectory() as folder:
        for point in points:
            save(Path(folder), profile_draft(load_model(model), point, result(), chosen))
        return tar_of(
            {str(p.relative_to(folder)): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}
        )


def tar_of(files, kind=tarfile.REGTYPE):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.type, info.linkname = len(content), kind, "/etc/passwd"
            tar.addfile(info, io.BytesIO(content) if kind == tarfile.REGTYPE else None)
    return stream.getvalue()


def status_of(tar, rc=0, step="profile"):
    import hashlib

    return json.dumps(
        {"rc": rc, "step": step, "sha256": hashlib.sha256(tar).hexdigest() if tar else ""}
    ).encode()


def address_of(script):
    """The folder in the bucket that a machine's script sends to."""
    found = re.search(rf"s3://{BUCKET}/(\S+/)\"\$2\"", script)
    return found[1]


class Quick:
    """Plays machines: each sends what `sends` says for its type, and ends, as soon as S3 is looked into.

    `sends` maps types to files in the bucket, by name; a type that isn't there stays silent and runs on.
    """

    def __init__(self, moto, sends):
        self.ec2, self.s3, self.sends, self.played = moto.client(), moto.client(service="s3"), sends, set()

    def client(self, moto):
        """A client of S3 that lets machines play before it looks."""
        made = moto.client(service="s3")
        made.meta.events.register("before-call.s3.ListObjectsV2", self.play)
        return made

    def play(self, **_):
        for row in machines(self.ec2, "pending", "running"):
            ident = row["InstanceId"]
            if ident in self.played or row["InstanceType"] not in self.sends:
                continue
            self.played.add(ident)
            folder = address_of(script_of(self.ec2, ident))
            for name, content in self.sends[row["InstanceType"]].items():
                self.s3.put_object(Bucket=BUCKET, Key=f"{folder}{name}", Body=content)
            self.ec2.terminate_instances(InstanceIds=[ident])


def sound(made):
    """What the machines of jobs send where all is well, by type."""
    return {job.machine.instance_type: sent(packed(job.points)) for job in made}


def sent(tar, rc=0, step="profile", log=b"a log\n"):
    """The files that a machine sends."""
    files = {"log.txt": log, "status.json": status_of(tar, rc, step)}
    return {**({"artifacts.tar.gz": tar} if tar else {}), **files}
