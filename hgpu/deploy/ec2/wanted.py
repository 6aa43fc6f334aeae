"""From a plan to the machines that it wants on EC2, and the launch template of each pool."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hgpu.artifacts.digest import digest_of
from hgpu.artifacts.payloads.plan import AllocationRow, PlanPayload
from hgpu.core.errors import InputError
from hgpu.core.offer import Market
from hgpu.deploy.ec2.options import Ec2Options, require, require_region
from hgpu.deploy.render.aws import launch_template, user_data
from hgpu.deploy.render.document import pool_slug, pools

_INSTANCE_TYPE = re.compile(r"[a-z0-9-]+\.[a-z0-9-]+")
_TEMPLATE_DIGITS = 10


@dataclass(frozen=True, slots=True)
class WantedPool:
    """`count` equal machines. The template's name holds a digest of all that a machine is and runs."""

    row: AllocationRow
    slug: str
    instance_type: str
    template: str
    body: dict[str, Any]
    usd_per_hour: float

    @property
    def count(self) -> int:
        """How many machines."""
        return self.row.count

    @property
    def engines(self) -> int:
        """How many engines each of them runs."""
        return self.row.gpus_per_machine // self.row.tp


def wanted_pools(plan: PlanPayload, options: Ec2Options) -> list[WantedPool]:
    """Return a plan's pools by name.

    Raises InputError for what can't be launched: another cloud or market, machines that pools share.
    """
    rows = pools(plan)
    _refuse_shared(rows)
    wanted = [_wanted(plan, row, options) for row in rows]
    slugs = [pool.slug for pool in wanted]
    if len(set(slugs)) < len(slugs) or not all(slugs):
        raise InputError("pools can't be told apart", ", ".join(row.pool for row in rows), "plan again")
    return wanted


def _wanted(plan: PlanPayload, row: AllocationRow, options: Ec2Options) -> WantedPool:
    if row.market not in (Market.ON_DEMAND, Market.SPOT):
        raise InputError(
            f"pool '{row.pool}' is {row.market}",
            "the target `aws` launches on_demand and spot machines",
            "plan with offers.markets: [on_demand, spot]",
        )
    body = launch_template(plan, row, options.render, user_data(plan, row, options.render))
    require_region(row.region)  # after the check that it is a machine of AWS at all
    # RunInstances tags machines and volumes itself: each has a slot of its own.
    data = {key: value for key, value in body["LaunchTemplateData"].items() if key != "TagSpecifications"}
    if options.security_groups:
        data["SecurityGroupIds"] = list(options.security_groups)
    require(_INSTANCE_TYPE, "instance type", data["InstanceType"], "g6.xlarge")
    made_of = {"data": data, "region": row.region, "subnet": options.subnet}
    # Not the pool's name: a pool that is only called otherwise in the next plan keeps its machines.
    type_slug = data["InstanceType"].replace(".", "-")
    name = f"{options.render.name}-{type_slug}-{digest_of(made_of)[:_TEMPLATE_DIGITS]}"
    return WantedPool(
        row=row,
        slug=pool_slug(row),
        instance_type=data["InstanceType"],
        template=name,
        body={**body, "LaunchTemplateName": name, "LaunchTemplateData": data},
        usd_per_hour=row.usd_per_hour / row.count,
    )


def _refuse_shared(rows: Sequence[AllocationRow]) -> None:
    """Machines of one offer may hold engines of several pools; a launch template has those of one."""
    for row in rows:
        beside = [o for o in rows if (o.offer, o.region) == (row.offer, row.region) and o is not row]
        if beside and row.engines % (row.gpus_per_machine // row.tp):
            raise InputError(
                f"pools '{row.pool}' and '{beside[0].pool}' share machines of {row.offer}",
                "the target `aws` starts the engines of one pool on a machine",
                "plan with one tensor_parallel degree, or with other instance types",
            )
