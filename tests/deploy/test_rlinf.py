import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hgpu.artifacts.payloads.placement import PlacementPayload
from hgpu.core.errors import Infeasible, InputError
from hgpu.deploy.render.rlinf import node_ranks, ordered_pools, rlinf_config
from hgpu.deploy.render.rlinf_grammar import Nodes, read_nodes, read_placement
from hgpu.deploy.render.rlinf_rules import check_rlinf
from hgpu.solvers.rl_plan import plan_loop
from hgpu.specs.rl import RlSpec

# Configurations of RLinf's own examples and documentation, down to what hgpu checks.
PIPELINE: dict[str, Any] = {
    "cluster": {
        "num_nodes": 16,
        "component_placement": {
            "actor": "0-31",
            "rollout": "32-111",
            "inference": "112-127",
            "reward": "all",
        },
    },
    "runner": {"task_type": "reasoning"},
    "algorithm": {"recompute_logprobs": True},
    "inference": {"model": {"tensor_model_parallel_size": 2}},
    "rollout": {"tensor_parallel_size": 1},
    "actor": {"model": {"tensor_model_parallel_size": 2}},
}
DYNAMIC: dict[str, Any] = copy.deepcopy(PIPELINE)
DYNAMIC["cluster"] |= {
    "num_nodes": 8,
    "auto_scheduler": True,
    "component_placement": {"actor": "0-15", "rollout": "16-55", "inference": "56-63", "reward": "all"},
}
HYBRID: dict[str, Any] = {
    "cluster": {"num_nodes": 1, "component_placement": {"actor": "0-7", "env": "0-3", "rollout": "4-7"}},
    "runner": {"task_type": "embodied"},
    "env": {"train": {"total_num_envs": 64, "group_size": 8}},
    "rollout": {"pipeline_stage_num": 2},
}
SHARED: dict[str, Any] = copy.deepcopy(HYBRID)
SHARED["cluster"]["component_placement"] = {"actor,env,rollout": "all"}
SHARED["rollout"]["pipeline_stage_num"] = 1
HETERO: dict[str, Any] = copy.deepcopy(HYBRID)
HETERO["env"]["train"]["group_size"] = 1
HETERO["cluster"] = {
    "num_nodes": 3,
    "node_groups": [{"label": "a800", "node_ranks": "0-1"}, {"label": "4090", "node_ranks": 2}],
    "component_placement": {
        "actor": {"node_group": "a800", "placement": "0-15"},
        "rollout": {"node_group": "4090", "placement": "0-7"},
        "env": {"node_group": "a800, 4090", "placement": "0-15:0-31"},
    },
}


@pytest.mark.parametrize(
    ("config", "nodes"), [(PIPELINE, 16), (DYNAMIC, 8), (HYBRID, 1), (SHARED, 1), (HETERO, 3)]
)
def test_configurations_of_rlinf_are_accepted(config: dict[str, Any], nodes: int) -> None:
    check_rlinf(config, [8] * nodes)


def test_the_documented_example_of_the_syntax_means_what_it_says_there() -> None:
    cluster = {"component_placement": {"agent": "0-1:0-3,3-5,7-10:7-14"}}
    agent = read_placement(cluster, Nodes((16,), {}))["agent"]
    assert agent.processes == (
        *[(0,)] * 2, *[(1,)] * 2, (3,), (4,), (5,), *[(gpu,) for gpu in (7, 8, 9, 10) for _ in range(2)],
    )  # fmt: skip


def test_fewer_processes_than_gpus_have_several_each() -> None:
    placed = read_placement({"component_placement": {"rollout": "0-7:0-3"}}, Nodes((8,), {}))
    assert placed["rollout"].processes == ((0, 1), (2, 3), (4, 5), (6, 7))


def mutated(config: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    made = copy.deepcopy(config)
    *parents, last = path.split("/")
    section = made
    for name in parents:
        section = section[name]
    if value is None:
        del section[last]
    else:
        section[last] = value
    return made


PLACED = "cluster/component_placement"


@pytest.mark.parametrize(
    ("config", "nodes", "path", "value", "said"),
    [
        (PIPELINE, 16, f"{PLACED}/reward", None, "reward isn't placed"),
        (PIPELINE, 16, f"{PLACED}/actor", None, "actor isn't placed"),
        (PIPELINE, 16, f"{PLACED}/rollout", "31-111", "actor and rollout share some GPUs"),
        (PIPELINE, 16, f"{PLACED}/inference", "111-126", "rollout and inference share some GPUs"),
        (PIPELINE, 16, f"{PLACED}/rollout", "32-60,62-111", "its GPUs have a gap"),
        (PIPELINE, 16, f"{PLACED}/inference", "112-128", "isn't within the ranks 0-127"),
        (PIPELINE, 16, f"{PLACED}/inference", "127-112", "isn't within the ranks"),
        (PIPELINE, 16, f"{PLACED}/inference", "112-126", "15 GPUs don't hold parts of 2"),
        (PIPELINE, 16, f"{PLACED}/inference", "112-", "is no rank"),
        (PIPELINE, 16, f"{PLACED}/inference", "-3", "is no rank"),
        (PIPELINE, 16, f"{PLACED}/inference", "", "it names no GPU"),
        (PIPELINE, 16, f"{PLACED}/rollout", "0-31", "actor and rollout share their GPUs"),
        (PIPELINE, 16, f"{PLACED}/actor,reward", "0-31", "'actor' is empty or placed twice"),
        (PIPELINE, 16, "rollout/tensor_parallel_size", 5, "an engine from GPU 37 on is on two nodes"),
        (PIPELINE, 16, "algorithm/recompute_logprobs", False, "recompute_logprobs is off"),
        (PIPELINE, 16, "cluster/num_nodes", 15, "there are 16 nodes"),
        (PIPELINE, 16, PLACED, {}, "it is missing or empty"),
        (PIPELINE, 16, "cluster/auto_scheduler", False, ""),
        (PIPELINE, 16, "cluster/auto_scheduler", True, ""),
        (DYNAMIC, 8, PLACED, {"rollout": "0-39", "inference": "40-47", "actor": "48-63", "reward": "all"},
         "actor doesn't begin at GPU 0"),
        (DYNAMIC, 8, PLACED, {"actor": "0-15", "inference": "16-23", "rollout": "24-63", "reward": "all"},
         "rollout doesn't begin at GPU 16"),
        (DYNAMIC, 8, f"{PLACED}/inference", "56-61", "GPUs 62-63 have no component"),
        (HYBRID, 1, f"{PLACED}/env", None, "env isn't placed"),
        (HYBRID, 1, f"{PLACED}/env", "0-4", "64 can't be divided by 5 processes"),
        (HYBRID, 1, f"{PLACED}/rollout", "4-7:all", "processes can't be 'all'"),
        (HYBRID, 1, f"{PLACED}/rollout", "4-7:1-4", "don't go on from 0"),
        (HYBRID, 1, f"{PLACED}/rollout", "4-7:0-2", "3 processes on 4 GPUs"),
        (HYBRID, 1, f"{PLACED}/rollout", "4-5,4-7", "doesn't rise above GPU 5"),
        (HYBRID, 1, f"{PLACED}/rollout", "6-7,4-5", "doesn't rise above GPU 7"),
        (HYBRID, 1, "rollout/pipeline_stage_num", 4, "4 environments in each of 4 stages"),
        (HYBRID, 1, "rollout/pipeline_stage_num", 0, "can't be divided"),
        (HYBRID, 1, "runner/task_type", "sft", "task of RLinf"),
        (HETERO, 3, f"{PLACED}/rollout/node_group", "h100", "no node group 'h100'"),
        (HETERO, 3, f"{PLACED}/rollout/placement", "0-8", "isn't within the ranks 0-7"),
        (HETERO, 3, f"{PLACED}/rollout/placement", None, "it has no placement"),
        (HETERO, 3, f"{PLACED}/actor/placement", "0-15:0", "on several nodes"),
        (HETERO, 3, "cluster/node_groups", [{"label": "a800", "node_ranks": "0-3"}], "the ranks 0-2"),
        (HETERO, 3, "cluster/node_groups", [{"label": "a", "node_ranks": 0}] * 2, "label 'a' is taken"),
    ],
)  # fmt: skip
def test_what_rlinf_refuses_is_refused(
    config: dict[str, Any], nodes: int, path: str, value: Any, said: str
) -> None:
    changed = mutated(config, path, value)
    if not said:
        check_rlinf(changed, [8] * nodes)
        return
    with pytest.raises(InputError) as refused:
        check_rlinf(changed, [8] * nodes)
    assert said in f"{refused.value.what} {refused.value.why}"


@st.composite
def specs(draw: st.DrawFn) -> RlSpec:
    """Loops with profiles from 1 to 64, so that whatever is best can be anything."""
    embodied = draw(st.booleans())
    names = ["env", "rollout", "actor"] if embodied else draw(
        st.sampled_from([["rollout", "actor"], ["rollout", "inference", "actor"]])
    )  # fmt: skip
    gpus = draw(st.sampled_from([["H100-SXM"], ["L4", "H100-SXM"]]))
    seconds = st.floats(1, 100).map(lambda value: round(value, 2))

    def component(name: str) -> dict[str, Any]:
        curves = {gpu: {1: draw(seconds), 8: draw(seconds), 64: draw(seconds)} for gpu in gpus}
        return {"name": name, "seconds": curves, "model_parallel": draw(st.sampled_from([1, 2, 4]))}

    pools = [
        {"gpu": gpu, "gpus": draw(st.integers(4, 24)), "gpus_per_node": draw(st.sampled_from([4, 8])),
         "usd_per_gpu_hour": draw(st.floats(0.5, 4)), "pay": draw(st.sampled_from(["nodes", "gpus", "pool"]))}
        for gpu in gpus
    ]  # fmt: skip
    sizes = {"envs": 48, "steps": 20, "group_size": 2, "stages": [1, 2, 3]} if embodied else {"batches": 16}
    modes = draw(st.sampled_from([["collocated"], ["disaggregated"], ["disaggregated", "hybrid"]]))
    return RlSpec.model_validate(
        {
            "kind": "rl",
            "workflow": "embodied" if embodied else "pipeline",
            "components": [component(name) for name in names],
            "pools": pools,
            "modes": modes,
            "objective": draw(st.sampled_from(["cost", "time"])),
            **sizes,
        }
    )


@settings(max_examples=120)
@given(specs())
def test_rendered_placements_are_accepted_and_say_what_was_planned(spec: RlSpec) -> None:
    try:
        plan = plan_loop(spec).payload
    except Infeasible:
        return
    config = rlinf_config(plan)
    pools = ordered_pools(plan)
    nodes = read_nodes(config["cluster"], [p.gpus_per_node for p in pools.values() for _ in range(p.nodes)])
    placed = read_placement(config["cluster"], nodes)
    for row in plan.components:
        if row.name == "inference" and plan.mode == "collocated":
            assert row.name not in placed
            continue
        assert len(placed[row.name].gpus) == row.gpus
        where = nodes.node_of_gpus(placed[row.name].groups)
        first, last = node_ranks(plan)[row.gpu]
        assert {where[gpu] for gpu in placed[row.name].gpus} <= set(range(first, last + 1))
        if plan.workflow == "embodied":
            assert len(placed[row.name].processes) == row.processes
    check_shared_gpus(plan, {name: set(row.gpus) for name, row in placed.items()})


def check_shared_gpus(plan: PlacementPayload, gpus: dict[str, set[int]]) -> None:
    """Components share in RLinf's configuration exactly the GPUs that they share in the plan."""
    for one in plan.components:
        for other in plan.components:
            if one.gpu == other.gpu and {one.name, other.name} <= set(gpus):
                planned = set(range(one.first_gpu, one.last_gpu + 1)) & set(
                    range(other.first_gpu, other.last_gpu + 1)
                )
                assert len(gpus[one.name] & gpus[other.name]) == len(planned)


def test_offloading_is_on_where_training_shares_gpus_and_only_there() -> None:
    base = {
        "kind": "rl",
        "workflow": "embodied",
        "envs": 16,
        "steps": 10,
        "stages": [2],
        "components": [
            {"name": name, "seconds": {"L4": {1: 1.0, 16: 2.0}}} for name in ("env", "rollout", "actor")
        ],
        "pools": [{"gpu": "L4", "gpus": 8, "usd_per_gpu_hour": 1.0}],
    }
    shared = rlinf_config(plan_loop(RlSpec.model_validate({**base, "modes": ["collocated"]})).payload)
    apart = rlinf_config(plan_loop(RlSpec.model_validate({**base, "modes": ["disaggregated"]})).payload)
    for name in ("env", "rollout", "actor"):
        assert shared[name]["enable_offload"] and not apart[name]["enable_offload"]
    assert apart["rollout"]["pipeline_stage_num"] == 2
