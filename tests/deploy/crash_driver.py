"""Run by test_crash: applies and is killed at one step after another; prints what was left each time.

Usage: crash_driver.py FOLDER. Each crash happens in a child, so the interpreter starts only once.
"""

import json
import os
import signal
import sys
from pathlib import Path

from deploy_standin import driver, saved_plan

from hgpu.deploy.driver import DeployOptions
from hgpu.deploy.launch import deployment_name
from hgpu.deploy.state_file import state_folder
from hgpu.runtime.processes import is_leader
from hgpu.runtime.tags import slot_of, tagged

OPTIONS = DeployOptions(timeout_s=20)
ENDLESS = 1000


def apply_killed_at(local, plan, root, step, options=OPTIONS):
    """Apply in a child that kills itself at the step-th report; return whether it lived to the end."""
    child = os.fork()
    if child == 0:
        left = iter(range(step))
        try:
            local.apply(plan, root, options, lambda _: next(left, None) is None and os.kill(os.getpid(), 9))
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
    return not died(child)


def died(child):
    """Whether the child was killed, rather than done."""
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        assert os.WEXITSTATUS(status) == 0
        return False
    assert os.WTERMSIG(status) == signal.SIGKILL
    return True


def main(folder):
    local = driver(folder, "child")
    outcomes = []
    for step in range(ENDLESS):
        root = folder / str(step)
        plan = saved_plan(root)
        name = deployment_name(plan.payload, plan.digest)
        done = apply_killed_at(local, plan, root, step)
        if step % 2 == 0 and not done:  # every other crash: carry on before taking it away
            assert apply_killed_at(local, plan, root, ENDLESS)
        place = state_folder(root, name)
        running = sorted(slot_of(p) for p in tagged(name, place) if is_leader(p))
        if name in local.names(root):
            local.destroy(root, name)
        outcomes.append({"step": step, "done": done, "running": running, "left": len(tagged(name, place))})
        if done:
            break
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
