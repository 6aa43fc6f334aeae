"""What the user asks of `hgpu profile --on`; light, as every profile looks whether anything was asked."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hgpu.core.errors import InputError

if TYPE_CHECKING:
    from hgpu.deploy.cloud.options import CloudOptions


@dataclass(frozen=True, slots=True)
class CloudRequest:
    """What the user asks of rented machines; None is the default of its option."""

    on: tuple[str, ...] = ()
    bucket: str | None = None
    install: str | None = None
    deadline_min: int | None = None
    region: str | None = None
    instance_profile: str | None = None
    secret: str | None = None
    image: str | None = None
    security_groups: tuple[str, ...] = ()
    subnet: str | None = None
    poll_s: float | None = None
    sweep: bool = False
    yes: bool = False

    def options(self) -> "CloudOptions":
        """Return them checked. Raises InputError."""
        from hgpu.deploy.cloud.options import CloudOptions, install_of, store_of

        given = {
            "image": self.image,
            "secret": self.secret,
            "instance_profile": self.instance_profile,
            "subnet": self.subnet,
            "deadline_min": self.deadline_min,
        }
        chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return CloudOptions(
            store_of(self.bucket), install_of(self.install), security_groups=self.security_groups, **chosen
        )


def refuse_without_on(asked: CloudRequest) -> None:
    """Raise InputError for options of rented machines where none is rented."""
    if asked != CloudRequest():
        raise InputError(
            "an option of rented machines was given", "no machine is named", "add --on, or drop the option"
        )
