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

from ec2_cases import WAITS, apply, launched_twice, leftovers, living, plan_of, pool, slots, templates
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
    machines = living(client, name)
    ids = sorted(machine["InstanceId"] for machine in machines)
    return {
        "slots": slots(machines),
        "templates": len(templates(client, name)),
        "recorded": sorted(m.instance_id for m in state.machines) == ids,
        "phase": state.phase,
    }


class Round:
    """A deployment of its own, through apply, rollout and destroy; `mine` and `childs` are clients."""

    def __init__(self, root, number, mine, childs):
        self.root, self.number, self.name = root, number, f"chat-{number}x"
        self.mine, self.childs = mine, childs
        self.plans = {"apply": plan_of(root, *OLD), "rollout": plan_of(root, *NEW)}

    def run(self, verb, client):
        driver = Ec2Driver(waits=WAITS, clients=lambda: lambda _: client)
        if verb == "destroy":
            if self.name in driver.names(self.root):
                driver.destroy(self.root, self.name)
        else:
            apply(driver, self.plans[verb], self.root, self.name)

    def crashed(self, verb):
        """Whether the verb was killed at this round's boundary, or ended before it."""
        return not killed_at(self.number, self.childs, lambda: self.run(verb, self.childs))

    def taken_away(self):
        self.run("destroy", self.mine)
        return leftovers(self.mine, self.name)

    def outcome(self, verb, crashed):
        """Every other crash is followed by a destroy before the verb is run again."""
        row = {"crashed": crashed}
        if verb == "destroy" or (crashed and (self.number + len(verb)) % 2):
            row["left"] = [*self.taken_away(), *launched_twice(self.mine, self.name)]
        if verb != "destroy":
            self.run(verb, self.mine)
            row |= seen(self.mine, self.name, self.root)
        return row


def main(folder, url):
    moto = SimpleNamespace(url=url)
    mine, childs = MotoServer.client(moto), MotoServer.client(moto)
    rounds, open_verbs = [], ["apply", "rollout", "destroy"]
    while open_verbs:
        number, row = len(rounds), {}
        if number % 6 == 0:
            MotoServer.reset(moto)  # it gets slower with every machine that it remembers
        one = Round(folder / str(number), number, mine, childs)
        for verb in ("apply", "rollout", "destroy"):
            crashed = verb in open_verbs and one.crashed(verb)
            row[verb] = one.outcome(verb, crashed)
            open_verbs = [v for v in open_verbs if v != verb or crashed]
        rounds.append(row)
    print(json.dumps(rounds))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
