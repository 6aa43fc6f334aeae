"""Applies to a cluster and is killed at one step after another; prints what was left each time.

Usage: cluster_crash_driver.py KUBECONFIG [KIND ...]; objects of the kinds are left out.
"""

import json
import os
import sys
from pathlib import Path

from crash_driver import ENDLESS, apply_killed_at, died
from small_cluster import NAME, OPTIONS, driver, small_plan

from hgpu.deploy.cluster.api import LEASE, POD, RENDERED_KINDS, Access, Cluster


def destroy_killed(local, root):
    child = os.fork()
    if child == 0:
        real = Cluster.delete
        Cluster.delete = lambda *words: (real(*words), os.kill(os.getpid(), 9))
        local.destroy(root, NAME)
        os._exit(1)
    assert died(child)


def main(kubeconfig, *without):
    local, root = driver(Path(kubeconfig), without), Path()
    plan = small_plan()
    seen = Cluster(Access(kubeconfig=Path(kubeconfig)), "default")
    selector = f"app.kubernetes.io/instance={NAME}"
    outcomes = []
    for step in range(ENDLESS):
        done = apply_killed_at(local, plan, root, step, OPTIONS)
        if step % 2 == 0 and not done:  # every other crash: carry on before taking it away
            assert apply_killed_at(local, plan, root, ENDLESS, OPTIONS)
        (status,) = local.status(root) or (None,)
        if status and step % 3 == 0:
            destroy_killed(local, root)
        if NAME in local.names(root):
            local.destroy(root, NAME)
        left = [one for kind in (*RENDERED_KINDS, POD, LEASE) for one in seen.find(kind, selector)]
        phase, drift = (status.phase, status.drift) if status else (None, ())
        outcomes.append({"step": step, "done": done, "phase": phase, "drift": drift, "left": len(left)})
        if done:
            break
    print(json.dumps(outcomes))


main(*sys.argv[1:])
