"""What `cluster.component_placement` of an RLinf configuration means, written anew from RLinf's own rules.

A key names one component or several, separated by commas. Its value is a text, or a mapping of `node_group`
and `placement`. The text has parts separated by commas, each `resource_ranks[:process_ranks]`, where ranks
are a number, an inclusive range `a-b` or (for resources) `all`. Resources rise from part to part, none
twice. Processes count on without a gap; a part that doesn't say its own has one a resource. In each part
one number divides the other.

Sources, all of RLinf/RLinf: `rlinf/scheduler/placement/placement.py` (ComponentPlacement),
`rlinf/scheduler/cluster/utils.py` (parse_rank_config), `rlinf/scheduler/placement/flexible.py` (a process
stays on one node). `rlinf_rules.py` has what a task asks beyond this.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hgpu.core.errors import InputError

Ranks = tuple[int, ...]
MOST_PROCESSES = 1 << 20  # of a component; no cluster holds more


@dataclass(frozen=True, slots=True)
class Nodes:
    """GPUs of each node in the order of node ranks, and the labelled groups of nodes."""

    gpus: tuple[int, ...]
    groups: Mapping[str, Ranks]

    def node_of_gpus(self, labels: Sequence[str]) -> Ranks:
        """Return the node of each GPU that a component may name: of some groups in their order, or of all."""
        nodes = [node for label in labels for node in self.groups[label]] if labels else range(len(self.gpus))
        return tuple(node for node in nodes for _ in range(self.gpus[node]))


@dataclass(frozen=True, slots=True)
class Placed:
    """A component's processes, each with the GPUs that it has, counted in the component's node groups."""

    processes: tuple[Ranks, ...]
    groups: tuple[str, ...] = ()

    @property
    def gpus(self) -> Ranks:
        """All GPUs of it, in order, each once."""
        return tuple(sorted({gpu for process in self.processes for gpu in process}))


def read_nodes(cluster: Mapping[str, Any], gpus: Sequence[int]) -> Nodes:
    """Return the nodes of a `cluster` section; `gpus` are those of each node.

    Raises InputError for another number of nodes, or for a group with a label or a node that can't be.
    """
    if cluster.get("num_nodes") != len(gpus):
        raise wrong("cluster.num_nodes", f"it is {cluster.get('num_nodes')}, and there are {len(gpus)} nodes")
    groups: dict[str, Ranks] = {}
    for group in cluster.get("node_groups") or []:
        label = str(group["label"])
        if label in groups or label in ("cluster", "node"):
            raise wrong("cluster.node_groups", f"label '{label}' is taken")
        groups[label] = read_ranks(str(group["node_ranks"]), len(gpus))
    return Nodes(tuple(gpus), groups)


def read_placement(cluster: Mapping[str, Any], nodes: Nodes) -> dict[str, Placed]:
    """Return where each component is placed; raises InputError for whatever RLinf refuses."""
    found: dict[str, Placed] = {}
    for key, value in (cluster.get("component_placement") or {}).items():
        for name in (part.strip() for part in str(key).split(",")):
            if not name or name in found:
                raise wrong("component_placement", f"'{name}' is empty or placed twice")
            found[name] = _placed(name, value, nodes)
    if not found:
        raise wrong("component_placement", "it is missing or empty")
    return found


def read_ranks(text: str, available: int) -> Ranks:
    """Return the ranks that a number, a range or `all` means, of so many that there are."""
    if text.lower() == "all":
        return tuple(range(available))
    first, dash, last = text.partition("-")
    if not first.isdigit() or (dash and not last.isdigit()):
        raise wrong("component_placement", f"'{text}' is no rank, no range a-b and not all")
    begin, end = int(first), int(last) if dash else int(first)
    if not begin <= end < available:
        raise wrong("component_placement", f"'{text}' isn't within the ranks 0-{available - 1}")
    return tuple(range(begin, end + 1))


def _placed(name: str, value: Any, nodes: Nodes) -> Placed:
    labels: tuple[str, ...] = ()
    if isinstance(value, Mapping):
        if "placement" not in value:
            raise wrong(f"component_placement.{name}", "it has no placement")
        given = value.get("node_group", [])
        listed = given if isinstance(given, list) else str(given).split(",")
        labels = tuple(str(label).strip() for label in listed)
        value = value["placement"]
    unknown = [label for label in labels if label not in nodes.groups]
    if unknown:
        raise wrong(f"component_placement.{name}", f"there is no node group '{unknown[0]}'")
    where = nodes.node_of_gpus(labels)
    processes = _processes(name, str(value), len(where))
    for gpus in processes:
        if len({where[gpu] for gpu in gpus}) > 1:
            raise wrong(f"component_placement.{name}", f"a process has GPUs {_text(gpus)} on several nodes")
    return Placed(processes, labels)


def _processes(name: str, text: str, available: int) -> tuple[Ranks, ...]:
    made: list[Ranks] = []
    last = -1
    for part in (part.strip() for part in text.split(",") if part.strip()):
        resources, colon, asked = part.partition(":")
        gpus = read_ranks(resources.strip(), available)
        if gpus[0] <= last:
            raise wrong(f"component_placement.{name}", f"'{part}' doesn't rise above GPU {last}")
        last = gpus[-1]
        made += _part(name, part, gpus, asked.strip() if colon else None, len(made))
    if not made:
        raise wrong(f"component_placement.{name}", "it names no GPU")
    return tuple(made)


def _part(name: str, part: str, gpus: Ranks, asked: str | None, first: int) -> list[Ranks]:
    """Return the processes of one part, the next of which has the rank `first`."""
    if asked is None:
        return [(gpu,) for gpu in gpus]
    if asked.lower() == "all":
        raise wrong(f"component_placement.{name}", f"processes can't be 'all' in '{part}'")
    ranks = read_ranks(asked, MOST_PROCESSES)
    if ranks[0] != first:
        raise wrong(f"component_placement.{name}", f"the processes of '{part}' don't go on from {first}")
    larger, smaller = max(len(gpus), len(ranks)), min(len(gpus), len(ranks))
    if larger % smaller:
        raise wrong(f"component_placement.{name}", f"{len(ranks)} processes on {len(gpus)} GPUs in '{part}'")
    each = larger // smaller
    if len(gpus) >= len(ranks):
        return [gpus[start : start + each] for start in range(0, len(gpus), each)]
    return [(gpu,) for gpu in gpus for _ in range(each)]


def _text(gpus: Ranks) -> str:
    return f"{gpus[0]}-{gpus[-1]}"


def wrong(where: str, why: str) -> InputError:
    """Return the error for a configuration that RLinf refuses."""
    return InputError(f"RLinf refuses {where}", why, "place the components another way")
