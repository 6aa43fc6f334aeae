"""Put a placement into a task's configuration of RLinf: python rlinf_apply.py PLACEMENT TASK OUT.

It travels beside the placement to where RLinf is, so it needs nothing but PyYAML. The task keeps all that the
placement says nothing about. What it says of nodes and components is replaced, not merged: RLinf refuses a
component that is placed twice, as `actor,rollout: all` beside `actor: 0-3` would.
"""

import sys
from pathlib import Path
from typing import Any

import yaml

REPLACED = ("component_placement", "node_groups")


def applied(task: dict[str, Any], placement: dict[str, Any]) -> dict[str, Any]:
    """Return the task's configuration with the placement in it."""
    cluster = {key: value for key, value in task.get("cluster", {}).items() if key not in REPLACED}
    return merged({**task, "cluster": cluster}, placement)


def merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return two nested mappings as one, in which `over` has the last word."""
    made = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(made.get(key), dict)
        made[key] = merged(made[key], value) if both else value
    return made


def main(placement: str, task: str, out: str) -> None:
    """Read, apply and write."""
    documents = [yaml.safe_load(Path(path).read_text(encoding="utf-8")) for path in (task, placement)]
    Path(out).write_text(yaml.safe_dump(applied(*documents), sort_keys=False), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
