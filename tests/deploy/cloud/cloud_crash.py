"""Run by test_cloud_crash: kills hgpu at one boundary after another, runs it again, prints what was there.

Usage: cloud_crash.py FOLDER MOTO_URL FIRST STEP SHIFT. A boundary lies before and after every call of EC2's
and S3's API, every replacement of the state on disk and every rename in the store. Rounds FIRST, FIRST + STEP
and so on kill a profile of one machine at that boundary and run it again to its end. Each crash happens in a
forked child, so the interpreter starts only once. While hgpu is dead the machine dies, measures on, or does
nothing: in turn, beginning with SHIFT.
"""

import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

from cloud_cases import Quick, fleet, jobs, living, objects, silent, sound
from machine_room import machines, prepare, tags_of
from moto_server import MotoServer

from hgpu.artifacts.resolve import entries
from hgpu.deploy.cloud.state import read_state
from hgpu.deploy.state_file import state_folder


class Boundaries:
    """Counts boundaries, and kills the process at one of them."""

    def __init__(self, last):
        self.left = iter(range(last))

    def __call__(self, **_):
        if next(self.left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, ec2, s3):
        for client, service in ((ec2, "ec2"), (s3, "s3")):
            client.meta.events.register(f"before-call.{service}", self)
            client.meta.events.register(f"after-call.{service}", self)
        Path.replace, Path.rename = self.around(Path.replace), self.around(Path.rename)

    def around(self, moved):
        def move(path, target):
            self()  # what is new is whole, beside what is old
            answer = moved(path, target)
            self()
            return answer

        return move


def killed_at(last, ec2, s3, work):
    """Do work in a child that dies at a boundary; return whether it came to its end first."""
    child = os.fork()
    if child == 0:
        try:
            Boundaries(last).watch(ec2, s3)
            work()
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def one_round(moto, number, root, shift):
    """Crash at a boundary, run again, and tell what is left of it; None where there is no such boundary."""
    (job,) = jobs("g6.xlarge")
    quick = Quick(moto, sound([job]))

    def work(ec2, s3):
        outcome = fleet(moto, ec2=ec2, s3=s3).run([job], root, silent)[job.name]
        if outcome.error:
            raise outcome.error

    childs = moto.client(), quick.client(moto)
    if not killed_at(number, *childs, lambda: work(*childs)):
        return None
    fate = (number // 3 + shift) % 3
    if fate == 0:
        running = living(moto.client())
        if running:
            moto.client().terminate_instances(InstanceIds=running)
    elif fate == 1:
        quick.play()
    work(moto.client(), quick.client(moto))
    mine = machines(moto.client())
    return {
        "living": living(moto.client()),
        "objects": objects(moto.client(service="s3")),
        "profiles": len(entries(root, "profile")),
        "staging": [path.name for path in root.rglob(".tmp-*") if path.is_dir()],
        "step": read_state(state_folder(root, job.name)).step,
        "attempts": [tags_of(row)["hgpu:lineage"] + tags_of(row)["hgpu:attempt"] for row in mine],
    }


def main(folder, url, first, step, shift):
    server = SimpleNamespace(url=url)
    moto = SimpleNamespace(
        client=lambda *words, **named: MotoServer.client(server, *words, **named),
        reset=lambda: MotoServer.reset(server),
    )
    rounds, number = [], first
    while True:
        prepare(moto)
        row = one_round(moto, number, folder / str(number), shift)
        if row is None:
            print(json.dumps(rounds))
            return
        rounds.append({"number": number, **row})
        number += step


main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
