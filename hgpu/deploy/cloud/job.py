"""What one rented machine is to measure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hgpu.artifacts.digest import digest_of
from hgpu.core.errors import InputError
from hgpu.core.model import ModelSpec
from hgpu.core.operating_point import OperatingPoint
from hgpu.deploy.cloud.options import CloudOptions
from hgpu.deploy.cloud.types import CloudType

NAME_DIGITS = 10
PREFIX = "profile-"  # of the names, and so of the tags


@dataclass(frozen=True, slots=True)
class Settings:
    """Options of `hgpu profile`, as the machine gets them."""

    repeats: int
    budget_s: float
    load_format: str
    point_limit_s: float

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.load_format):
            raise InputError(
                f"'{self.load_format}' is no load format",
                "vLLM has auto, dummy and others",
                "see --load-format",
            )

    def words(self) -> list[str]:
        """Return them as words of a command."""
        return [
            "--repeats",
            str(self.repeats),
            "--budget",
            f"{self.budget_s:g}",
            "--load-format",
            self.load_format,
            "--point-limit",
            f"{self.point_limit_s:g}",
        ]


@dataclass(frozen=True, slots=True)
class CloudJob:
    """Operating points of one model on one type of machine; `spec` is the spec file that the machine gets."""

    machine: CloudType
    model: ModelSpec
    points: tuple[OperatingPoint, ...]
    spec: Mapping[str, Any]
    settings: Settings
    options: CloudOptions

    @property
    def name(self) -> str:
        """What machine, state and results are found by: the same command again has the same name.

        The deadline, networks and the like are not part of it: they don't change what is measured.
        """
        made_of = {
            "machine": [self.machine.instance_type, self.machine.region],
            "spec": dict(self.spec),
            "words": self.settings.words(),
            "install": [self.options.install.requirement, self.options.install.sha256],
            "image": self.options.image,
            "store": [self.options.store.bucket, self.options.store.prefix],
        }
        return f"{PREFIX}{self.machine.instance_type.replace('.', '-')}-{digest_of(made_of)[:NAME_DIGITS]}"
