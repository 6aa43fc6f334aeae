import json
import subprocess
import sys
from pathlib import Path

from moto_server import MotoServer

SLOTS = {"apply": ["a10g-spot-0", "l4-0"], "rollout": ["l4-0", "l40s-0"]}


def rounds_of(script, tmp_path):
    """What a crash driver prints, run against a moto of its own."""
    folder = Path(__file__).parent
    moto = MotoServer(tmp_path / "moto.log")
    try:
        done = subprocess.run(
            [sys.executable, folder / script, tmp_path, moto.url],
            capture_output=True,
            text=True,
            env=moto.environment | {"PYTHONPATH": f"{folder.parent}:{Path.cwd()}"},
            timeout=600,
        )
    finally:
        moto.stop()
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_supervisor_killed_at_every_boundary_leaves_no_orphan_and_launches_nothing_twice(tmp_path):
    done = rounds_of("ec2_keep_crash.py", tmp_path)
    assert done["left"] == [] and sum(row["crashed"] for row in done["rounds"]) > 40
    for number, row in enumerate(done["rounds"]):
        seen = {key: value for key, value in row.items() if key != "crashed"}
        assert seen == {
            "pools": ["a10g-spot", "l4"],
            "recorded": True,
            "templates": 2,
            "launches": 2,
            "twice": [],
        }, number


def test_kill_9_at_every_boundary_leaves_no_orphan_and_no_duplicate(tmp_path):
    rounds = rounds_of("ec2_crash.py", tmp_path)
    crashes = {verb: sum(row[verb]["crashed"] for row in rounds) for verb in ("apply", "rollout", "destroy")}
    assert crashes["apply"] > 40 and crashes["rollout"] > 40 and crashes["destroy"] > 20, crashes
    for number, row in enumerate(rounds):
        for verb, slots in SLOTS.items():
            seen = {key: row[verb][key] for key in ("slots", "templates", "recorded", "phase")}
            wanted = {"slots": slots, "templates": 2, "recorded": True, "phase": "ready"}
            assert seen == wanted, (number, verb)
        assert all(part.get("left", []) == [] for part in row.values()), number
        assert row["destroy"]["left"] == [], number
