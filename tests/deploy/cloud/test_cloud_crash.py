import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from moto_server import MotoServer

SHIFT = os.environ.get("HGPU_CRASH_SHIFT", "0")  # 1 and 2 meet the other fates of the machine


# In shares, for the workers that run tests side by side.
@pytest.mark.parametrize("share", range(3))
def test_kill_9_at_every_boundary_ends_with_the_profile_and_no_machine(tmp_path, share):
    here = Path(__file__).parent
    moto = MotoServer(tmp_path / "moto.log")
    try:
        done = subprocess.run(
            [sys.executable, here / "cloud_crash.py", tmp_path, moto.url, str(share), "3", SHIFT],
            capture_output=True,
            text=True,
            env=moto.environment | {"PYTHONPATH": f"{here}:{here.parent / 'ec2'}:{Path.cwd()}"},
            timeout=600,
        )
    finally:
        moto.stop()
    assert done.returncode == 0, done.stderr
    rounds = json.loads(done.stdout)
    assert len(rounds) > 12
    for row in rounds:
        end = {key: row[key] for key in ("living", "objects", "profiles", "step")}
        assert end == {"living": [], "objects": [], "profiles": 1, "step": "ended"}, row
        # One machine an attempt, of one lineage: none was launched twice, or forgotten.
        assert len(set(row["attempts"])) == len(row["attempts"]), row
        assert len({name[:8] for name in row["attempts"]}) == 1, row
