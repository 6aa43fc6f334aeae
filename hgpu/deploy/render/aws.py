"""AWS EC2: a launch template for each pool, whose machines start their engines by themselves."""

import base64
import math
import shlex

from hgpu.artifacts.payloads.plan import AllocationRow, PlanPayload
from hgpu.core.errors import InputError
from hgpu.core.offer import Market
from hgpu.deploy.launch import served_name
from hgpu.deploy.render.document import Body, Document, RenderOptions, pool_slug, pools, refuse_autoscaling
from hgpu.deploy.render.gpu_check import gpu_check
from hgpu.deploy.render.pods import CACHE, PORT, engine_words

# Amazon's image with NVIDIA's driver and Docker; the parameter names the newest of its region.
IMAGE_ID = (
    "resolve:ssm:/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"
)
DISK_GIB = 100  # beside the weights
METADATA = {"HttpEndpoint": "enabled", "HttpTokens": "required", "HttpPutResponseHopLimit": 1}  # IMDSv2 only
SECRETS_FILE = "/run/hgpu/secrets"  # in memory


def aws_documents(plan: PlanPayload, options: RenderOptions) -> list[Document]:
    """Return each pool's parameters of `ec2 create-launch-template`, and the script in them to read."""
    refuse_autoscaling(options, "aws")
    documents = []
    for row in pools(plan):
        script = user_data(plan, row, options)
        template = launch_template(plan, row, options, script)
        documents += [
            Document(f"{pool_slug(row)}/launch-template.yaml", template),
            Document(f"{pool_slug(row)}/user-data.sh", script),
        ]
    return documents


def launch_template(plan: PlanPayload, row: AllocationRow, options: RenderOptions, script: str) -> Body:
    """Return a pool's machines: IMDSv2 only, an encrypted disk, tags to find them by, no secret in it.

    The instance profile has the deployment's name; the security group is the default one of the network,
    which nothing from outside reaches.
    """
    cloud, _, sold = row.offer.partition("/")
    instance = sold.partition(":")[0]  # spot offers end in their market
    if cloud != "aws":
        raise InputError(
            f"pool '{row.pool}' is of {row.offer}",
            "the target `aws` rents machines of AWS",
            "plan with offers.clouds: [aws]",
        )
    tags = [
        {"Key": "hgpu:deployment", "Value": options.name},
        {"Key": "hgpu:pool", "Value": pool_slug(row)},
        {"Key": "hgpu:plan", "Value": options.plan_digest},
    ]
    data: dict[str, object] = {
        "ImageId": IMAGE_ID,
        "InstanceType": instance,
        "IamInstanceProfile": {"Name": options.name},
        "InstanceInitiatedShutdownBehavior": "terminate",  # a machine with other GPUs shuts itself down
        "MetadataOptions": METADATA,
        "BlockDeviceMappings": [disk(plan.model.weight_bytes if plan.model else 0)],
        "UserData": base64.b64encode(script.encode()).decode(),
        "TagSpecifications": [{"ResourceType": kind, "Tags": tags} for kind in ("instance", "volume")],
    }
    if row.market == Market.SPOT:
        data["InstanceMarketOptions"] = {
            "MarketType": "spot",
            "SpotOptions": {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"},
        }
    return {
        "LaunchTemplateName": f"{options.name}-{pool_slug(row)}",
        "LaunchTemplateData": data,
        "TagSpecifications": [{"ResourceType": "launch-template", "Tags": tags}],
    }


def disk(weight_bytes: float) -> Body:
    """Return an encrypted disk that holds a model's weights and goes with its machine."""
    size_gib = DISK_GIB + math.ceil(weight_bytes / 2**30)
    volume = {"VolumeType": "gp3", "VolumeSize": size_gib, "Encrypted": True, "DeleteOnTermination": True}
    return {"DeviceName": "/dev/sda1", "Ebs": volume}


def user_data(plan: PlanPayload, row: AllocationRow, options: RenderOptions) -> str:
    """Return the script of a machine: it looks at its GPUs, fetches the secrets with its own role, and
    starts its engines.
    """
    fetch = ["aws", "secretsmanager", "get-secret-value", "--region", row.region]
    fetch += ["--secret-id", options.secret, "--query", "SecretString", "--output", "text"]
    return "\n".join(
        [
            "#!/bin/bash",
            "set -euo pipefail",
            "umask 077",
            *gpu_check(row),
            f"mkdir -p /run/hgpu /var/lib/hgpu{CACHE}",
            f"{shlex.join(fetch)} > {SECRETS_FILE}  # NAME=value lines",
            *engine_commands(plan, row, options),
            "",
        ]
    )


def engine_commands(plan: PlanPayload, row: AllocationRow, options: RenderOptions) -> list[str]:
    """Return the shell commands that start the engines of one of a pool's machines."""
    return [_engine(plan, row, options, number) for number in range(row.gpus_per_machine // row.tp)]


def _engine(plan: PlanPayload, row: AllocationRow, options: RenderOptions, number: int) -> str:
    devices = ",".join(str(number * row.tp + rank) for rank in range(row.tp))
    words = ["docker", "run", "--detach", "--restart", "always", "--name", f"engine-{number}"]
    words += ["--gpus", f'"device={devices}"', "--ipc", "host", "--env-file", SECRETS_FILE]
    words += ["--env", f"HF_HOME={CACHE}", "--volume", f"/var/lib/hgpu{CACHE}:{CACHE}"]
    words += ["--publish", f"{PORT + number}:{PORT}"]
    started = engine_words(plan, row.point, served_name(plan))
    return shlex.join([*words, "--entrypoint", started[0], options.image, *started[1:]])
