"""What RLinf's tasks ask of a placement beyond its grammar.

`reasoning` (RLinf/RLinf, `rlinf/utils/placement.py`, ModelParallelComponentPlacement): actor, rollout and
reward are placed, each on GPUs without a gap; either actor and rollout have the same GPUs, and there is no
inference, or all have their own. Node groups don't count there: ranks are those of the whole cluster. The
automatic scheduler (`cluster.auto_scheduler`) takes actor → rollout → inference only, from the first GPU to
the last. An engine of rollout stays on one node.

`embodied` (`rlinf/config.py`, validate_embodied_cfg): the environments must divide into the simulator's
processes and the stages, in whole groups.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from hgpu.core.errors import UnknownName
from hgpu.deploy.render.rlinf_grammar import Placed, Ranks, read_nodes, read_placement, wrong

TASKS = ("reasoning", "embodied")
EXCLUSIVE = ("actor", "rollout", "inference", "critic")


def check_rlinf(config: Mapping[str, Any], gpus: Sequence[int]) -> None:
    """Raise InputError unless RLinf takes the placement of a configuration on nodes with so many GPUs."""
    cluster = config.get("cluster") or {}
    nodes = read_nodes(cluster, gpus)
    placed = read_placement(cluster, nodes)
    task = (config.get("runner") or {}).get("task_type")
    if task == "embodied":
        _check_embodied(config, placed)
    elif task == "reasoning":
        _check_reasoning(config, placed, sum(gpus), gpus)
    else:
        raise UnknownName("task of RLinf that hgpu checks", str(task), TASKS)


def _check_embodied(config: Mapping[str, Any], placed: Mapping[str, Placed]) -> None:
    for name in ("actor", "env", "rollout"):
        if name not in placed:
            raise wrong("component_placement", f"{name} isn't placed")
    train = config["env"]["train"]
    envs, group = train["total_num_envs"], train.get("group_size", 1)
    processes = len(placed["env"].processes)
    stages = config["rollout"]["pipeline_stage_num"]
    if stages < 1 or envs % processes:
        raise wrong("env.train.total_num_envs", f"{envs} can't be divided by {processes} processes")
    in_stage = envs // processes // stages
    if in_stage < 1 or in_stage % group:
        raise wrong(
            "rollout.pipeline_stage_num",
            f"a process has {in_stage} environments in each of {stages} stages, not whole groups of {group}",
        )


def _check_reasoning(
    config: Mapping[str, Any], placed: Mapping[str, Placed], total: int, nodes: Sequence[int]
) -> None:
    for name in ("actor", "rollout", "reward"):
        if name not in placed:
            raise wrong("component_placement", f"{name} isn't placed")
    for name, where in placed.items():
        if where.groups:
            raise wrong(f"component_placement.{name}", "reasoning tasks count GPUs over the whole cluster")
        _check_gpus(name, where.gpus, _model_parallel(config, name), nodes)
    exclusive = {name: placed[name].gpus for name in EXCLUSIVE if name in placed}
    if config["cluster"].get("auto_scheduler"):
        _check_order(exclusive, total)
    elif exclusive["actor"] == exclusive["rollout"]:
        if "inference" in exclusive:
            raise wrong("component_placement.inference", "actor and rollout share their GPUs")
        return
    _check_apart(exclusive, bool((config.get("algorithm") or {}).get("recompute_logprobs")))


def _check_apart(exclusive: Mapping[str, Ranks], recomputes: bool) -> None:
    for (one, first), (other, second) in combinations(exclusive.items(), 2):
        if set(first) & set(second):
            raise wrong("component_placement", f"{one} and {other} share some GPUs, but not all do")
    if "inference" in exclusive and not recomputes:
        raise wrong("component_placement.inference", "algorithm.recompute_logprobs is off")


def _model_parallel(config: Mapping[str, Any], name: str) -> int:
    section = config.get(name) or {}
    if name == "rollout":
        return int(section.get("tensor_parallel_size", 1))
    return int((section.get("model") or {}).get("tensor_model_parallel_size", 1))


def _check_gpus(name: str, gpus: Ranks, model_parallel: int, nodes: Sequence[int]) -> None:
    if gpus != tuple(range(gpus[0], gpus[-1] + 1)):
        raise wrong(f"component_placement.{name}", "its GPUs have a gap")
    if len(gpus) % model_parallel:
        raise wrong(f"component_placement.{name}", f"{len(gpus)} GPUs don't hold parts of {model_parallel}")
    where = [node for node, count in enumerate(nodes) for _ in range(count)]
    for first in range(gpus[0], gpus[-1] + 1, model_parallel) if name == "rollout" else ():
        if where[first] != where[first + model_parallel - 1]:
            raise wrong(f"component_placement.{name}", f"an engine from GPU {first} on is on two nodes")


def _check_order(exclusive: Mapping[str, Ranks], total: int) -> None:
    """The automatic scheduler takes actor, rollout, inference one after the other, and all GPUs."""
    next_gpu = 0
    for name in ("actor", "rollout", "inference"):
        if name in exclusive:
            if exclusive[name][0] != next_gpu:
                raise wrong("cluster.auto_scheduler", f"{name} doesn't begin at GPU {next_gpu}")
            next_gpu = exclusive[name][-1] + 1
    if next_gpu != total:
        raise wrong("cluster.auto_scheduler", f"GPUs {next_gpu}-{total - 1} have no component")
