"""A placement as the part of an RLinf configuration that says where components run.

Ranks of `reasoning` tasks are global there; those of `embodied` ones count in a node group where there are
several GPU types. What is rendered is held against RLinf's rules (`rlinf_rules.py`) before it is returned.
"""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from hgpu.artifacts.payloads.placement import PlacedComponent, PlacedPool, PlacementPayload
from hgpu.deploy.render.rlinf_rules import check_rlinf
from hgpu.solvers.rl_ranks import ORDER

Section = dict[str, Any]
PLACEMENT, APPLY = "placement.yaml", "rlinf_apply.py"


def rlinf_config(plan: PlacementPayload) -> Section:
    """Return the configuration; raises InputError where RLinf would refuse it."""
    pools = ordered_pools(plan)
    config = _embodied(plan, pools) if plan.workflow == "embodied" else _reasoning(plan, pools)
    check_rlinf(config, [pool.gpus_per_node for pool in pools.values() for _ in range(pool.nodes)])
    return config


def apply_script() -> str:
    """Return the script that puts a placement into a task's configuration."""
    return files("hgpu.deploy.render").joinpath(APPLY).read_text(encoding="utf-8")


def ordered_pools(plan: PlacementPayload) -> dict[str, PlacedPool]:
    """Return the used pools by GPU type in the order of their nodes: that of training first."""
    pools = {pool.gpu: pool for pool in plan.pools if pool.used}
    return {row.gpu: pools[row.gpu] for row in sorted(plan.components, key=_order)}


def node_ranks(plan: PlacementPayload) -> dict[str, tuple[int, int]]:
    """Return the first and last node of each used pool, by GPU type."""
    ranks, first = {}, 0
    for gpu, pool in ordered_pools(plan).items():
        ranks[gpu] = (first, first + pool.nodes - 1)
        first += pool.nodes
    return ranks


def _embodied(plan: PlacementPayload, pools: Mapping[str, PlacedPool]) -> Section:
    groups = len(pools) > 1
    placement: Section = {}
    for row in sorted(plan.components, key=_order):
        text = _range(row.first_gpu, row.last_gpu)
        if row.model_parallel > 1:
            text += f":{_range(0, row.processes - 1)}"
        placement[row.name] = {"node_group": row.gpu, "placement": text} if groups else text
    cluster: Section = {
        "num_nodes": sum(pool.nodes for pool in pools.values()),
        "component_placement": placement,
    }
    if groups:
        cluster["node_groups"] = [
            {"label": gpu, "node_ranks": _range(*ranks)} for gpu, ranks in node_ranks(plan).items()
        ]
    actor = next(row for row in plan.components if row.name == "actor")
    offload = {row.name: row is not actor and _overlap(row, actor) for row in plan.components}
    return {
        "cluster": cluster,
        "runner": {"task_type": "embodied"},
        "env": {
            "enable_offload": offload["env"],
            "train": {"total_num_envs": plan.envs, "group_size": plan.group_size},
        },
        "rollout": {"enable_offload": offload["rollout"], "pipeline_stage_num": plan.stages},
        "actor": {"enable_offload": any(offload.values())},
    }


def _reasoning(plan: PlacementPayload, pools: Mapping[str, PlacedPool]) -> Section:
    shared = plan.mode == "collocated"
    rows = {row.name: row for row in sorted(plan.components, key=_order)}
    placement = {
        name: _range(*(_start(pools, row) + gpu for gpu in (row.first_gpu, row.last_gpu)))
        for name, row in rows.items()
        if not (shared and name == "inference")  # RLinf: training recomputes then; placing it is refused
    }
    placement.setdefault("reward", "all")  # rules, not a model: it takes no GPU time, and must be placed
    return {
        "cluster": {
            "num_nodes": sum(pool.nodes for pool in pools.values()),
            "component_placement": placement,
        },
        "runner": {"task_type": "reasoning"},
        "algorithm": {"recompute_logprobs": "inference" in rows},
        "data": {"rollout_batch_size": plan.batches},
        **{name: _model_parallel(row, shared) for name, row in rows.items()},
    }


def _model_parallel(row: PlacedComponent, shared: bool) -> Section:
    if row.name == "rollout":
        return {"tensor_parallel_size": row.model_parallel}
    made: Section = {"model": {"tensor_model_parallel_size": row.model_parallel}}
    if row.name == "actor":
        made |= {"offload_weight": shared, "offload_grad": shared, "offload_optimizer": shared}
    return made


def _start(pools: Mapping[str, PlacedPool], row: PlacedComponent) -> int:
    """Return the rank in the cluster of the first GPU of a component's pool."""
    before = list(pools)[: list(pools).index(row.gpu)]
    return sum(pools[gpu].nodes * pools[gpu].gpus_per_node for gpu in before)


def _overlap(one: PlacedComponent, other: PlacedComponent) -> bool:
    return one.gpu == other.gpu and one.first_gpu <= other.last_gpu and other.first_gpu <= one.last_gpu


def _order(row: PlacedComponent) -> int:
    return ORDER.index(row.name)


def _range(first: int, last: int) -> str:
    return f"{first}-{last}" if last > first else f"{first}"
