"""What a user chooses of profiling on rented machines, checked before it reaches a shell or an address."""

import re
from dataclasses import dataclass
from pathlib import Path

from hgpu.artifacts.digest import file_digest
from hgpu.core.errors import InputError
from hgpu.deploy.ec2.options import require, require_group, require_subnet
from hgpu.deploy.render.document import IMAGE, require_dns_label, require_image

SHORTEST_MIN, LONGEST_MIN = 15, 24 * 60
INSTANCE_PROFILE = "hgpu-profile"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_WHEEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]*\.whl")
_PROFILE = re.compile(r"[\w+=,.@-]{1,128}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Store:
    """A place in S3; results lie below the prefix until they are home."""

    bucket: str
    prefix: str = "hgpu"

    def __post_init__(self) -> None:
        require(_BUCKET, "bucket of S3", self.bucket, "my-bucket, or my-bucket/a/prefix")
        require(_PREFIX, "prefix in a bucket", self.prefix, "my-bucket/a/prefix")


@dataclass(frozen=True, slots=True)
class Install:
    """Where machines get hgpu from: a requirement for pip, or a wheel of this machine by its sha256."""

    requirement: str
    wheel: Path | None = None
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class CloudOptions:
    """How machines are launched. `secret` is the *name* of one in Secrets Manager that holds HF_TOKEN.

    Machines shut down, and so terminate, `deadline_min` minutes after they have booted.
    """

    store: Store
    install: Install
    image: str = IMAGE
    secret: str | None = None
    instance_profile: str = INSTANCE_PROFILE
    security_groups: tuple[str, ...] = ()
    subnet: str | None = None
    deadline_min: int = 120

    def __post_init__(self) -> None:
        require_image(self.image)
        require(_PROFILE, "instance profile", self.instance_profile, INSTANCE_PROFILE)
        if self.secret is not None:
            require_dns_label("secret", self.secret)
        for group in self.security_groups:
            require_group(group)
        if self.subnet is not None:
            require_subnet(self.subnet)
        if not SHORTEST_MIN <= self.deadline_min <= LONGEST_MIN:
            raise InputError(
                f"a deadline of {self.deadline_min} minutes can't be kept",
                "booting, fetching the image and sending the results take some, and no profile takes a day",
                f"give {SHORTEST_MIN} to {LONGEST_MIN} minutes",
            )


def store_of(word: str | None) -> Store:
    """Return the place that `BUCKET` or `BUCKET/PREFIX` names; raise InputError where there is none."""
    if not word:
        raise InputError(
            "where machines leave their results isn't said",
            "nothing from outside reaches them, so they send results to a bucket of yours in S3",
            "give --bucket BUCKET, or BUCKET/PREFIX",
        )
    bucket, slash, prefix = word.removeprefix("s3://").partition("/")
    return Store(bucket, prefix.rstrip("/")) if slash and prefix.rstrip("/") else Store(bucket)


def install_of(word: str | None) -> Install:
    """Return what machines install. Raises InputError for what is neither a wheel nor a requirement."""
    if not word:
        raise InputError(
            "where machines get hgpu from isn't said",
            "they must run the hgpu that you trust, and no package index is taken to hold it",
            "give --install with a wheel's path, or with pip's requirement as in 'hgpu @ https://...whl'",
        )
    if word.startswith("-") or not word.isprintable():
        raise InputError(
            f"--install {word!r} is no requirement", "it is one line, and no option", "correct it"
        )
    if not word.endswith(".whl") or "://" in word:
        return Install(word)
    path = Path(word)
    if not path.is_file():
        raise InputError(
            f"no wheel at {path}", "--install names it", "build one, as with `pip wheel --no-deps .`"
        )
    require(_WHEEL, "name of a wheel", path.name, "hgpu-1.0-py3-none-any.whl")
    return Install(path.name, path, file_digest(path))
