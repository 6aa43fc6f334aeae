"""Run by test_crash: kills hgpu at one boundary after another, runs it again, and prints what was there.

Usage: ec2_crash.py FOLDER MOTO_URL. A boundary lies before and after every call of EC2's API, and before and
after every replacement of the state on disk. The n-th round kills an apply at its n-th boundary,
then the apply of another plan at its n-th, then a destroy at its n-th; each time the same verb is run again
to its end. Each crash happens in a forked child, so the interpreter starts only once.
"""

import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

from ec2_cases import WAITS, apply, leftovers, living, plan_of, pool, slots, templates
from moto_server import MotoServer

from hgpu.deploy.ec2.driver import Ec2Driver
from hgpu.deploy.ec2.state import read_state
from hgpu.deploy.state_file import state_folder

OLD = (pool("l4", 1), pool("a10g-spot", 1))
NEW = (pool("l4", 1), pool("l40s", 1))
EXPECTED = {"apply": ["a10g-spot-0", "l4-0"], "rollout": ["l40s-0", "l4-0"]}


class Boundaries:
    """Counts boundaries, and kills the process at one of them."""

    def __init__(self, last):
        self.left = iter(range(last))

    def __call__(self, **_):
        if next(self.left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, client):
        client.meta.events.register("before-call.ec2", self)
        client.meta.events.register("after-call.ec2", self)
        replace = Path.replace

        def replaced(path, target):
            self()  # the new state is whole, beside the old one
            replace(path, target)
            self()

        Path.replace = replaced


def killed_at(last, client, verb):
    """Run a verb in a child that dies at a boundary; return whether it came to its end first."""
    child = os.fork()
    if child == 0:
        try:
            Boundaries(last).watch(client)
            verb()
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0
    return True


def seen(client, name, root):
    state = read_state(state_folder(root, name))
    ids = sorted(machine["InstanceId"] for machine in living(client, name))
    return {
        "slots": slots(client, name),
        "templates": len(templates(client, name)),
        "recorded": sorted(m.instance_id for m in state.machines) == ids,
        "phase": state.phase,
    }


def main(folder, url):
    moto = SimpleNamespace(url=url)
    mine, childs = MotoServer.client(moto), MotoServer.client(moto)

    def driver(client):
        return Ec2Driver(waits=WAITS, clients=lambda: lambda _: client)

    def applied(client, plan):
        return lambda: apply(driver(client), plan, root, name)

    def destroyed(client):
        return lambda: driver(client).destroy(root, name)

    rounds, ended = [], {"apply": False, "rollout": False, "destroy": False}
    while not all(ended.values()):
        number = len(rounds)
        MotoServer.reset(moto)  # it gets slower with every machine that it remembers
        root, name = folder / str(number), f"chat-{number}x"
        old, new = plan_of(root, *OLD), plan_of(root, *NEW)
        row = {}
        for verb, run in (
            ("apply", lambda client: applied(client, old)),
            ("rollout", lambda client: applied(client, new)),
            ("destroy", destroyed),
        ):
            row[f"{verb} ended"] = ended[verb] or killed_at(number, childs, run(childs))
            ended[verb] = row[f"{verb} ended"]
            if verb == "destroy" and state_folder(root, name).exists():
                run(mine)()
                row[verb] = {"left": leftovers(mine, name), "phase": seen(mine, name, root)["phase"]}
            elif verb != "destroy":
                run(mine)()
                row[verb] = seen(mine, name, root)
        rounds.append(row)
    print(json.dumps(rounds))


main(Path(sys.argv[1]), sys.argv[2])
