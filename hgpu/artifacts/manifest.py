"""What stands in an artifact's `manifest.json`."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from hgpu.artifacts.digest import digest_of


class Strict(BaseModel):
    """A border model: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class InputRef(Strict):
    """Something that the artifact was made from: another artifact, or a file by its sha256."""

    role: str
    kind: str
    digest: str


class FileRef(Strict):
    """A file beside the manifest."""

    path: str
    sha256: str
    bytes: int


class Producer(Strict):
    """The program that made the artifact."""

    version: str
    git_sha: str | None = None
    dirty: bool | None = None


class Environment(Strict):
    """Where it was made. Not part of the digest."""

    gpu: str | None = None
    driver: str | None = None
    engine: str | None = None
    model_revision: str | None = None
    price_date: str | None = None
    machine: str | None = None


class Validity(Strict):
    """Whether the artifact may be used, and why not."""

    valid: bool = True
    reasons: list[str] = Field(default_factory=list)


class Manifest(Strict):
    """An artifact. `payload` is checked by the model of its kind.

    `timings` holds seconds spent; like `created_at`, `producer`, `environment` and `validity`
    it stays out of the digest, so that the same inputs give the same digest again.
    """

    kind: str
    schema_version: int
    digest: str
    created_at: str
    inputs: list[InputRef]
    options: dict[str, Any]
    producer: Producer
    environment: Environment
    files: list[FileRef]
    validity: Validity
    timings: dict[str, float] = Field(default_factory=dict)
    payload: dict[str, Any]


def manifest_digest(document: dict[str, Any]) -> str:
    """Return the digest that a manifest's own contents call for.

    It covers kind, schema version, input digests, options, payload and file hashes, and no
    time, host or path outside the artifact.
    """
    inputs = sorted([row["role"], row["kind"], row["digest"]] for row in document["inputs"])
    files = sorted([row["path"], row["sha256"]] for row in document["files"])
    kept = {key: document[key] for key in ("kind", "schema_version", "options", "payload")}
    return digest_of({**kept, "inputs": inputs, "files": files})
