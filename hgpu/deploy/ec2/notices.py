"""Spot machines that EC2 is about to take away: what the requests behind them say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from hgpu.deploy.ec2.clients import Clients, told
from hgpu.deploy.ec2.world import Instance

# Of a request's status: its machine is interrupted two minutes later.
MARKED = ("marked-for-termination", "marked-for-stop")
NOTICE = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class Notice:
    """EC2 takes a machine away at a time, and the code that says so."""

    code: str
    until: datetime


def notices_of(clients: Clients, instances: Sequence[Instance]) -> dict[str, Notice]:
    """Return the notices that spot machines have been given, by the machine's id."""
    notices: dict[str, Notice] = {}
    with told():
        for region in sorted({found.region for found in instances}):
            ids = [found.id for found in instances if found.region == region]
            asked = [{"Name": "instance-id", "Values": ids}]
            pages = clients(region).get_paginator("describe_spot_instance_requests").paginate(Filters=asked)
            for page in pages:
                notices |= _marked(page["SpotInstanceRequests"])
    return notices


def _marked(rows: Sequence[Mapping[str, Any]]) -> dict[str, Notice]:
    found = {}
    for row in rows:
        status = row.get("Status", {})
        if status.get("Code") in MARKED and "InstanceId" in row:
            given: datetime = status.get("UpdateTime") or datetime.now(UTC)
            found[str(row["InstanceId"])] = Notice(str(status["Code"]), given + NOTICE)
    return found
