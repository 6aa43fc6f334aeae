"""Machines as EC2 would run them: each boots with the script that it was launched with."""

import base64
import json
import subprocess
import sys
import threading
from pathlib import Path

from hgpu.catalog.offers import load_offers

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
PARTS = ("aws", "docker", "hgpu", "shutdown", "uv")
GPUS = {offer.instance_type: offer.gpu for offer in load_offers() if offer.cloud == "aws"}


def prepare(moto):
    """What a user has before: a bucket, and an instance profile."""
    moto.reset()
    moto.client(service="s3").create_bucket(Bucket="results")
    moto.client(service="iam").create_instance_profile(InstanceProfileName="hgpu-profile")


def machines(client, *states):
    """All machines of moto in some states, or in any."""
    rows = [i for r in client.describe_instances()["Reservations"] for i in r["Instances"]]
    return [row for row in rows if not states or row["State"]["Name"] in states]


def tags_of(row):
    return {tag["Key"]: tag["Value"] for tag in row["Tags"]}


def script_of(client, ident):
    """The user data of a machine."""
    answer = client.describe_instance_attribute(InstanceId=ident, Attribute="userData")
    return base64.b64decode(answer["UserData"]["Value"]).decode()


class MachineRoom:
    """`faults` maps types to what fails there, by part; `dead` ones end before their script begins."""

    def __init__(self, moto, folder):
        self.moto, self.folder = moto, folder
        self.client = moto.client()
        self.faults, self.dead, self.deaf = {}, set(), set()
        self.booted, self.processes = set(), []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._watch)

    def __enter__(self):
        self.folder.mkdir()
        self._write_parts()
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()
        for process in self.processes:
            process.wait(timeout=60)

    def notes(self, part):
        """What the parts of all machines were called with."""
        lines = [line for path in self.folder.glob("*/notes") for line in path.read_text().splitlines()]
        return [words[1:] for words in map(json.loads, lines) if words[0] == part]

    def _watch(self):
        while not self.stop.wait(0.05):  # moto, another process, tells no event
            for row in machines(self.client, "running"):
                if row["InstanceId"] not in self.booted and row["InstanceType"] not in self.deaf:
                    self.booted.add(row["InstanceId"])
                    self._boot(row)

    def _boot(self, row):
        ident, sort = row["InstanceId"], row["InstanceType"]
        if sort in self.dead:
            self.client.terminate_instances(InstanceIds=[ident])
            return
        place = self.folder / ident
        (place / "secrets").mkdir(parents=True)
        script = script_of(self.client, ident)
        (place / "script").write_text(
            script.replace("/var/lib/hgpu", str(place / "work")).replace("/run/hgpu", str(place / "secrets"))
        )
        environment = self.moto.environment | {
            "PATH": f"{self.folder / 'parts'}:/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "MACHINE_ID": ident,
            "MACHINE_GPU": GPUS[sort],
            "MACHINE_NOTES": str(place / "notes"),
            "MACHINE_ENGINE": str(self.folder / "parts" / "engine"),
            "MACHINE_FAULTS": json.dumps(self.faults.get(sort, {})),
            "HGPU_STANDIN": json.dumps(self.faults.get(sort, {}).get("engine", {})),
            "HGPU_STANDIN_STARTS": str(place / "starts"),
        }
        self.processes.append(subprocess.Popen(["bash", str(place / "script")], env=environment))

    def _write_parts(self):
        folder = self.folder / "parts"
        folder.mkdir()
        worker = ROOT / "tests" / "profilers" / "standin_worker.py"
        commands = {part: f'"{HERE / "machine_parts.py"}" {part}' for part in PARTS} | {
            "engine": f'"{worker}"'
        }
        for name, command in commands.items():
            (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {command} "$@"\n')
            (folder / name).chmod(0o755)
