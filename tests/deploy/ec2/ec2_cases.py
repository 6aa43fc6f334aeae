"""Plans for EC2, drivers that wait for nothing, and what a test sees there without hgpu."""

from collections import Counter
from dataclasses import replace

from deploy_standin import row, saved_plan

from hgpu.core.errors import EngineError
from hgpu.core.gpu import DType
from hgpu.core.operating_point import OperatingPoint
from hgpu.deploy.ec2.driver import Ec2Driver
from hgpu.deploy.ec2.options import Ec2Options, Waits
from hgpu.deploy.render.document import RenderOptions

WAITS = Waits(health_s=1.0, poll_s=0.01, visible_s=0.05)
GONE = ("terminated", "shutting-down")
SOLD = {
    "l4": ("aws/g6.xlarge", "L4", 0.8048),
    "l40s": ("aws/g6e.xlarge", "L40S", 1.861),
    "a10g-spot": ("aws/g5.xlarge:spot", "A10G", 0.4),
}


def pool(name, count, region="us-east-1", **changes):
    offer, gpu, usd_per_hour = SOLD[name]
    base = row(pool=name, gpu=gpu, engines=count)
    update = {
        "offer": offer,
        "region": region,
        "market": "spot" if offer.endswith(":spot") else "on_demand",
        "usd_per_hour": usd_per_hour * count,
        "point": replace(OperatingPoint(gpu, 1, base.point.mode, DType.BF16), engine=base.point.engine),
    }
    return base.model_copy(update={**update, **changes})


def plan_of(root, *pools, **fields):
    return saved_plan(root, *pools, **fields)


def options(name="chat", **changes):
    return Ec2Options(RenderOptions(name, "0" * 12), **changes)


def driver(moto, *regions, **changes):
    made = {}

    def client(region):
        if region not in made:
            made[region] = moto.client(region)
        return made[region]

    return Ec2Driver(regions, **{"waits": WAITS, "clients": lambda: client, **changes})


def yes(_diff):
    """The user's go-ahead."""


def no(_diff):
    raise EngineError("not approved")


def silent(_text):
    """No progress."""


def apply(made, plan, root, name="chat", approve=yes, replan=None, progress=silent, **changes):
    return made.apply(plan, root, options(name, **changes), approve, replan, progress)


def tagged(name):
    return [{"Name": "tag:hgpu:deployment", "Values": [name]}]


def living(client, name="chat"):
    """The deployment's machines that run, as EC2 says."""
    rows = client.describe_instances(Filters=tagged(name))["Reservations"]
    found = [instance for r in rows for instance in r["Instances"]]
    return [instance for instance in found if instance["State"]["Name"] not in GONE]


def slots(machines):
    return sorted({tag["Key"]: tag["Value"] for tag in one["Tags"]}["hgpu:slot"] for one in machines)


def launched_twice(client, name="chat"):
    """The machines that were launched more than once, also where all but one are gone again."""
    rows = client.describe_instances(Filters=tagged(name))["Reservations"]
    tags = [{tag["Key"]: tag["Value"] for tag in i["Tags"]} for r in rows for i in r["Instances"]]
    keys = Counter(tuple(row[f"hgpu:{key}"] for key in ("slot", "generation", "attempt")) for row in tags)
    return [key for key, count in keys.items() if count > 1]


def templates(client, name="chat"):
    rows = client.describe_launch_templates(Filters=tagged(name))["LaunchTemplates"]
    return sorted(found["LaunchTemplateName"] for found in rows)


def leftovers(client, name="chat"):
    """Everything that carries the tag and costs money or a name."""
    volumes = client.describe_volumes(Filters=tagged(name))["Volumes"]
    return [*(i["InstanceId"] for i in living(client, name)), *templates(client, name), *volumes]
