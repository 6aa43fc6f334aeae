import json
import subprocess
import sys
from pathlib import Path


def test_kill_9_at_every_step_leaves_nothing_that_destroy_misses(tmp_path):
    script = Path(__file__).with_name("crash_driver.py")
    done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout)
    assert len(outcomes) > 20
    assert [row["done"] for row in outcomes] == [False] * (len(outcomes) - 1) + [True]
    assert all(row["left"] == 0 for row in outcomes)
    for row in outcomes[::2]:  # applied again after the crash: all there, nothing twice
        assert row["running"] == ["engine-0", "engine-1", "pool-chat", "router", "supervisor"]
