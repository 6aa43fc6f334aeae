"""Clients of EC2, and its errors as hgpu's."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hgpu.core.errors import HgpuError, InputError

Clients = Callable[[str], Any]  # from a region to boto3's client of EC2 there

POLICIES = "docs/iam/deploy-aws.json has what deployments need, profile-aws.json what profiling needs"
REFUSED = ("UnauthorizedOperation", "AccessDenied", "AccessDeniedException")
TRIES = 8  # of a call: throttling and passing faults are botocore's to repeat


def boto3_clients(service: str = "ec2") -> Clients:
    """Return clients of the account that boto3 finds, one a region. Raises InputError without boto3."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise InputError(
            "boto3 isn't installed", "AWS is driven through it", "pip install 'hgpu[aws]'"
        ) from error
    made: dict[str, Any] = {}
    config = Config(
        retries={"mode": "standard", "total_max_attempts": TRIES}, connect_timeout=10, read_timeout=60
    )

    def client(region: str) -> Any:
        if region not in made:
            made[region] = boto3.client(service, region_name=region, config=config)
        return made[region]

    return client


def code_of(error: Any) -> str:
    """Return the code of botocore's ClientError."""
    return str(error.response.get("Error", {}).get("Code", ""))


def message_of(error: Any) -> str:
    """Return what EC2 says of botocore's ClientError, in one line."""
    return " ".join(str(error.response.get("Error", {}).get("Message", "")).split())[:300]


def is_final(error: BaseException | None) -> bool:
    """Tell whether EC2 said no: after a fault on its side (5xx), or no answer, a call may have worked."""
    response = getattr(error, "response", None) or {}
    return 400 <= int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) < 500


def refusal(operation: str, code: str, message: str) -> HgpuError:
    """Return the error of a call that EC2 refused."""
    barred = code in REFUSED
    return HgpuError(
        f"EC2 refused {operation}: {code}",
        "the account's policy doesn't allow it" if barred else message,
        POLICIES if barred else "mend that, and run the same command again",
    )


@contextmanager
def told() -> Iterator[None]:
    """Raise what botocore raises as InputError (no credentials) or HgpuError (refused, or out of reach)."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        yield
    except NoCredentialsError as error:
        raise InputError(
            "AWS doesn't know you", str(error), "set up credentials, as with `aws configure`"
        ) from error
    except ClientError as error:
        raise refusal(error.operation_name, code_of(error), message_of(error)) from error
    except BotoCoreError as error:
        raise HgpuError("AWS can't be used", str(error), "run the same command again") from error
