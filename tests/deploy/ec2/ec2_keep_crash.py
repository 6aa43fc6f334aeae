"""Run by test_ec2_crash: kills a supervisor at one boundary after another, and lets another one go on.

Usage: ec2_keep_crash.py FOLDER MOTO_URL. In every round a deployment of two machines loses one and gets a
spot notice for the other. The n-th round kills the passes at their n-th boundary (before or after a call of
EC2's API, or a replacement of the state on disk), then makes passes until all is as the plan says.
"""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

from ec2_cases import WAITS, apply, launched_twice, leftovers, living, plan_of, slots, templates
from ec2_crash import OLD, killed_at
from ec2_faults import Faults
from moto_server import MotoServer

from hgpu.artifacts.resolve import resolve
from hgpu.deploy.ec2.driver import Ec2Driver
from hgpu.deploy.ec2.ladder import Patience
from hgpu.deploy.ec2.state import read_state
from hgpu.deploy.state import Phase
from hgpu.deploy.state_file import state_folder

MOST_PASSES = 8
ROUNDS = 6  # of one deployment


def kept(root, name, client):
    """Make passes until the deployment is as its plan says."""
    driver = Ec2Driver(waits=WAITS, clients=lambda: lambda _: client)
    plans = lambda digest: resolve(root, digest, "plan")  # noqa: E731
    keeper = driver.keeper(root, name, plans, lambda _: {}, None, lambda _: None)
    keeper.patience, keeper.an_hour = Patience(drain_s=0), 2 * ROUNDS
    for _ in range(MOST_PASSES):
        if keeper.look().phase is Phase.READY:
            return
    raise AssertionError(f"not ready after {MOST_PASSES} passes")


def harmed(root, name, client, faults):
    """Take one machine away, and announce that the other one goes."""
    ids = {m.pool: m.instance_id for m in read_state(state_folder(root, name)).machines}
    client.terminate_instances(InstanceIds=[ids["l4"]])
    for one in faults:
        one.notice(ids["a10g-spot"], datetime.now(UTC))


def round_of(root, name, number, clients, faults):
    mine, childs = clients
    folder = state_folder(root, name)
    before = len(read_state(folder).replaced)
    harmed(root, name, mine, faults)
    crashed = not killed_at(number, childs, lambda: kept(root, name, childs))
    kept(root, name, mine)
    state, machines = read_state(folder), living(mine, name)
    ids = sorted(machine["InstanceId"] for machine in machines)
    return {
        "crashed": crashed,
        "pools": [slot.rpartition("-")[0] for slot in slots(machines)],
        "recorded": sorted(m.instance_id for m in state.machines) == ids,
        "templates": len(templates(mine, name)),
        "launches": len(state.replaced) - before,
        "twice": launched_twice(mine, name),
    }


def main(folder, url):
    moto = SimpleNamespace(url=url)
    clients = [MotoServer.client(moto) for _ in range(2)]
    faults = [Faults(client) for client in clients]
    driver = Ec2Driver(waits=WAITS, clients=lambda: lambda _: clients[0])
    rows, left = [], []
    while not rows or rows[-1]["crashed"]:
        root, name = folder / str(len(rows)), f"chat-{len(rows)}x"
        MotoServer.reset(moto)  # it gets slower with every machine that it remembers
        apply(driver, plan_of(root, *OLD), root, name)
        for _ in range(ROUNDS):
            rows.append(round_of(root, name, len(rows), clients, faults))
        driver.destroy(root, name)
        left += leftovers(clients[0], name)
    print(json.dumps({"rounds": rows, "left": left}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
