"""EC2 as moto plays it, behind a real HTTP endpoint of this machine."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import boto3
from botocore.config import Config

from hgpu.runtime.ports import free_ports

REGION = "us-east-1"
KEYS = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}


class MotoServer:
    """Started in a process of its own; stop it."""

    def __init__(self, log):
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        with Path(log).open("wb") as stream:
            self.process = subprocess.Popen(command, stdout=stream, stderr=stream, env=self.environment)
        self._await()

    @property
    def environment(self):
        kept = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
        return kept | {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_ENDPOINT_URL": self.url,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }

    def client(self, region=REGION, service="ec2"):
        config = Config(retries={"total_max_attempts": 2})
        return boto3.client(service, region_name=region, endpoint_url=self.url, config=config, **KEYS)

    def reset(self):
        request = urllib.request.Request(f"{self.url}/moto-api/reset", method="POST")
        urllib.request.urlopen(request).read()

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=20)

    def _await(self):
        for _ in range(400):
            assert self.process.poll() is None, "moto's server ended"
            try:
                urllib.request.urlopen(f"{self.url}/moto-api/data.json").read()
                return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.05)  # no event tells that another process listens
        raise AssertionError("moto's server doesn't answer")
