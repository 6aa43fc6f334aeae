"""The bucket through which results come home: looked into, fetched from, and left empty."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hgpu.artifacts.manifest import Strict
from hgpu.core.errors import HgpuError, InputError
from hgpu.deploy.cloud.options import Store
from hgpu.deploy.cloud.script import STATUS
from hgpu.deploy.ec2.clients import REFUSED, code_of, message_of

LONGEST_STATUS_BYTES = 4096
LARGEST_BYTES = 512 * 2**20  # of what is fetched: samples are some megabytes


class MachineStatus(Strict):
    """How a machine ended: the exit code of the `step` it came to, and the digest of what it sent."""

    rc: int
    step: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Bucket:
    """A client of S3 and the place there; names are below the place's prefix."""

    client: Any
    store: Store

    def require(self) -> None:
        """Raise InputError where the bucket can't be looked into, before anything costs money."""
        with _told(self.store.bucket):
            self.client.list_objects_v2(Bucket=self.store.bucket, Prefix=f"{self.store.prefix}/", MaxKeys=1)

    def status(self, folder: str) -> MachineStatus | None:
        """Return what a machine said of its end; None where it didn't yet."""
        if f"{folder}{STATUS}" not in self.names(folder):
            return None
        text = self._body(f"{folder}{STATUS}", LONGEST_STATUS_BYTES)
        try:
            return MachineStatus.model_validate_json(text)
        except ValueError as error:
            raise HgpuError(
                "what a machine says of its end can't be read",
                f"s3://{self.store.bucket}/{self.store.prefix}/{folder}{STATUS}: {text[:80]!r}",
                "see who else writes there, and profile again",
            ) from error

    def names(self, folder: str) -> list[str]:
        """Return the names of all that lies in a folder."""
        prefix = f"{self.store.prefix}/"
        with _told(self.store.bucket):
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.store.bucket, Prefix=f"{prefix}{folder}"
            )
            return [row["Key"].removeprefix(prefix) for page in pages for row in page.get("Contents", [])]

    def fetch(self, name: str, target: Path) -> None:
        """Write an object to a file."""
        try:
            target.write_bytes(self._body(name, LARGEST_BYTES))
        except OSError as error:
            raise HgpuError(
                f"can't write {target}", error.strerror or str(error), "free space; the same command goes on"
            ) from error

    def send(self, source: Path, name: str) -> None:
        """Put a file there."""
        with _told(self.store.bucket):
            self.client.put_object(
                Bucket=self.store.bucket, Key=f"{self.store.prefix}/{name}", Body=source.read_bytes()
            )

    def drop(self, folder: str) -> None:
        """Delete all that lies in a folder."""
        for name in self.names(folder):
            with _told(self.store.bucket):
                self.client.delete_object(Bucket=self.store.bucket, Key=f"{self.store.prefix}/{name}")

    def _body(self, name: str, most_bytes: int) -> bytes:
        with _told(self.store.bucket):
            answer = self.client.get_object(Bucket=self.store.bucket, Key=f"{self.store.prefix}/{name}")
            with answer["Body"] as stream:
                if answer["ContentLength"] > most_bytes:
                    raise HgpuError(
                        f"{name} in bucket {self.store.bucket} is too large",
                        f"it has {answer['ContentLength']} bytes; no machine sends more than {most_bytes}",
                        "see who else writes there, and profile again",
                    )
                content: bytes = stream.read()
        return content


@contextmanager
def _told(bucket: str) -> Iterator[None]:
    """Raise what botocore raises as InputError (no such bucket, no right, no credentials) or HgpuError."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        yield
    except NoCredentialsError as error:
        raise InputError(
            "AWS doesn't know you", str(error), "set up credentials, as with `aws configure`"
        ) from error
    except ClientError as error:
        code = code_of(error)
        if code in (*REFUSED, "NoSuchBucket", "PermanentRedirect", "403"):
            raise InputError(
                f"bucket {bucket} can't be used: {code}",
                f"S3 refused {error.operation_name}: {message_of(error)}",
                "give a --bucket of yours, and the rights of docs/iam/profile-aws.json",
            ) from error
        raise HgpuError(
            f"S3 refused {error.operation_name}: {code}", message_of(error), "run the same command again"
        ) from error
    except BotoCoreError as error:
        raise HgpuError("S3 can't be used", str(error), "run the same command again") from error
