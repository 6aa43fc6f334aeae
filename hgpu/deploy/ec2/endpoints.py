"""Where requests may go: the engines of the machines that are ready and not cordoned, for what balances."""

import json
from pathlib import Path

from hgpu.core.errors import HgpuError
from hgpu.deploy.ec2.engines import Addresses
from hgpu.deploy.ec2.state import Ec2State, Rung, Step
from hgpu.deploy.ec2.world import World

ENDPOINTS_FILE = "endpoints.json"


def endpoints_of(
    state: Ec2State, world: World, engines: dict[str, int], addresses: Addresses
) -> dict[str, list[str]]:
    """Return the URLs of a deployment's ready engines by pool; a cordoned machine's aren't among them."""
    found: dict[str, list[str]] = {machine.pool: [] for machine in state.machines}
    for machine in state.at(Step.UP, Step.LEAVING):
        there = world.instance(machine.instance_id)
        ready = machine.watched is not None and machine.watched.rung is Rung.READY
        if ready and machine.cordon is None and there is not None and there.private_ip:
            found[machine.pool] += addresses(there.private_ip, engines.get(machine.template, 1))
    return {pool: sorted(urls) for pool, urls in sorted(found.items())}


def write_endpoints(folder: Path, endpoints: dict[str, list[str]]) -> bool:
    """Replace the file where it says something else; tell whether it did."""
    path, text = folder / ENDPOINTS_FILE, json.dumps({"pools": endpoints}, indent=1) + "\n"
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return False
    staging = folder / f".{ENDPOINTS_FILE}.tmp"
    try:
        staging.write_text(text, encoding="utf-8")
        staging.replace(path)
    except OSError as error:
        raise HgpuError(f"can't write {path}", error.strerror or str(error), "free space") from error
    return True
