import subprocess
from typing import Any

import pytest
import yaml

from hgpu.artifacts.payloads.placement import PlacementPayload
from hgpu.core.errors import InputError, UnknownName
from hgpu.deploy.render.document import Document
from hgpu.deploy.render.rl_targets import loop_target, render_loop
from hgpu.deploy.render.rlinf_rules import check_rlinf
from hgpu.solvers.rl_plan import plan_loop
from hgpu.specs.rl import RlSpec

OFFERED = [{"gpu": "H100-SXM", "gpus": 16}]
COMMAND = 'cd /opt/RLinf && python "$HGPU_SPEC/rlinf_apply.py" "$HGPU_SPEC/placement.yaml" a.yaml b.yaml'


def planned(pools: list[dict[str, Any]] = OFFERED, **changes: Any) -> PlacementPayload:
    """A pipeline that is fastest on two nodes of eight GPUs."""
    seconds = {pool["gpu"]: {8: 100.0, 16: 90.0} for pool in pools}
    spec = {
        "kind": "rl",
        "name": "Math",
        "workflow": "pipeline",
        "batches": 64,
        "components": [{"name": name, "seconds": seconds} for name in ("rollout", "actor")],
        "pools": pools,
        "objective": "time",
        "offers": {"clouds": ["aws"]},
        **changes,
    }
    return plan_loop(RlSpec.model_validate(spec)).payload


def rendered(target: str, plan: PlacementPayload, **given: Any) -> dict[str, Any]:
    options = {"image": "me/rlinf:1"} | given
    command = options.pop("command", COMMAND)
    documents = render_loop(plan, "0" * 12, target, options, command, None)
    assert not [note for note in (checked(target, document) for document in documents) if note]
    return {document.path: document.body for document in documents}


def checked(target: str, document: Document) -> str:
    note = loop_target(target).check(document, None)
    return "" if "isn't installed" in note or "no definition" in note else note


def test_a_placement_on_two_nodes_is_a_job_of_two_pods_that_know_their_rank() -> None:
    files = rendered("kubernetes", planned())
    job, config = files["job.yaml"], files["files.yaml"]["data"]
    assert job["metadata"]["name"] == "rl-math"
    assert job["spec"]["completions"] == 2 and "service.yaml" in files
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"][:3] == ["sh", "/spec/start.sh", "2"]
    assert container["command"][3] == COMMAND.replace("$", "$$")  # a kubelet makes it $ again
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "8"}
    assert {"HGPU_NODE_RANK", "HGPU_LEADER_ADDRESS"} <= {row["name"] for row in container["env"]}
    check_rlinf(yaml.safe_load(config["placement.yaml"]), [8, 8])
    compile(config["rlinf_apply.py"], "rlinf_apply.py", "exec")


def test_a_task_of_skypilot_rents_the_offer_that_was_priced() -> None:
    plan = planned()
    (task,) = rendered("sky", plan).values()
    (pool,) = plan.pools
    assert task["num_nodes"] == 2 and task["resources"]["accelerators"] == {"H100": 8}
    assert task["resources"]["infra"] == f"aws/{pool.region}" and task["resources"]["instance_type"]
    assert "start.sh 2 " in task["run"]


def test_the_script_that_starts_ray_is_one_that_a_shell_reads() -> None:
    script = rendered("kubernetes", planned())["files.yaml"]["data"]["start.sh"]
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize(
    ("target", "pools", "given", "said"),
    [
        ("sky", OFFERED, {"command": None}, "what starts the loop"),
        ("kubernetes", [{"gpu": "H100-SXM", "gpus": 16, "usd_per_gpu_hour": 3}], {}, "is no offer"),
        ("rlinf", OFFERED, {}, "of a job"),
    ],
)
def test_what_no_job_can_do_is_refused(
    target: str, pools: list[dict[str, Any]], given: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        rendered(target, planned(pools), **given)


def test_a_job_is_of_one_gpu_type_and_kubernetes_needs_an_image() -> None:
    both = planned([{"gpu": gpu, "gpus": 8} for gpu in ("H100-SXM", "A100-80GB")], modes=["disaggregated"])
    with pytest.raises(InputError, match="is on"):
        rendered("sky", both)
    with pytest.raises(InputError, match="no container image"):
        render_loop(planned(), "0" * 12, "lws", {}, COMMAND, None)
    with pytest.raises(UnknownName, match="target of a loop"):
        loop_target("aibrix")
