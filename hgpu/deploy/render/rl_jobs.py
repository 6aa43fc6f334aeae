"""A placement as a job on machines of one type: Ray on each, RLinf's node ranks, the loop on the first.

RLinf runs on a Ray cluster whose nodes know their rank (`RLINF_NODE_RANK`; RLinf/RLinf, `docs/source-en/
rst_source/tutorials/usage/multi_node.rst`). What starts the loop is the user's: RLinf has a script and a
configuration a task.
"""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from hgpu.artifacts.payloads.placement import PlacedPool, PlacementPayload
from hgpu.core.errors import InputError
from hgpu.deploy.render.batch import SKY_SPEC, SPEC_FOLDER, BatchJob
from hgpu.deploy.render.document import LONGEST_NAME, RenderOptions
from hgpu.deploy.render.rlinf import APPLY, PLACEMENT, apply_script, ordered_pools, rlinf_config

START = "start.sh"
CLAIM = "hgpu-data"
SCRIPT = """\
# Starts Ray on each machine, as RLinf asks for it, and the loop on the first: start.sh NODES COMMAND
set -eu
HGPU_SPEC="$(cd "$(dirname "$0")" && pwd)"
RLINF_NODE_RANK="${HGPU_NODE_RANK:-0}"
export HGPU_SPEC RLINF_NODE_RANK
if [ "$RLINF_NODE_RANK" != 0 ]; then
  until ray start --address="$HGPU_LEADER_ADDRESS:6379" --disable-usage-stats; do sleep 5; done
  while ray status --address="$HGPU_LEADER_ADDRESS:6379" > /dev/null 2>&1; do sleep 10; done
  exit 0
fi
ray start --head --port=6379 --disable-usage-stats
python3 - "$1" <<'END'
import sys
import time

import ray

ray.init(address="auto")
while sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[1]):
    time.sleep(2)
END
status=0
sh -c "$2" || status=$?
ray stop
exit "$status"
"""


def loop_job(plan: PlacementPayload, target: str, command: str | None, claim: str | None) -> BatchJob:
    """Return the job of a placement; raises InputError where it isn't on machines of one priced type."""
    pool = _only_pool(plan)
    if not pool.offer:
        raise InputError(
            f"the pool of {pool.gpu} is no offer", "its price is the spec's", "plan without usd_per_gpu_hour"
        )
    if not command:
        raise InputError(
            "nothing says what starts the loop",
            "RLinf has a script and a configuration for each task",
            "give it as it runs on the first machine: --command 'cd /opt/RLinf && …'",
        )
    folder = SKY_SPEC if target == "sky" else SPEC_FOLDER
    config = yaml.safe_dump(rlinf_config(plan), sort_keys=False)
    return BatchJob(
        command=["sh", f"{folder}/{START}", str(pool.nodes), command],
        files={PLACEMENT: config, APPLY: apply_script(), START: SCRIPT},
        offer=pool.offer,
        region=pool.region,
        market=pool.market,
        gpu=pool.gpu,
        gpus=pool.gpus_per_node,
        nodes=pool.nodes,
        claim=claim or CLAIM,
    )


def loop_options(plan: PlacementPayload, digest: str, target: str, given: Mapping[str, Any]) -> RenderOptions:
    """Return the options of a job's files; raises InputError where Kubernetes has no image to run."""
    if target != "sky" and "image" not in given:
        raise InputError(
            "no container image to run", "it is yours: with RLinf, Ray and the task", "give one with --image"
        )
    slug = re.sub(r"[^a-z0-9]+", "-", f"rl-{plan.name}".lower()).strip("-")[:LONGEST_NAME].rstrip("-")
    return RenderOptions(**{"name": slug, "plan_digest": digest, **given})


def _only_pool(plan: PlacementPayload) -> PlacedPool:
    pool, *others = ordered_pools(plan).values()
    if others:
        types = ", ".join(ordered_pools(plan))
        raise InputError(
            f"the placement is on {types}",
            "a job has machines of one type",
            "start the nodes yourself and use --target rlinf, or plan with one pool",
        )
    return pool
