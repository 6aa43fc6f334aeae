"""One process of fine-tunes: runs jobs (a JSON file) one after the other.

Started by torchrun: tune_ranks_once.py JOBS ROOT. Each artifact lies under ROOT/NUMBER.
"""

import json
import sys
from pathlib import Path

from hgpu.core.training import Method, Sharding
from hgpu.tuning.job import TuneJob
from hgpu.tuning.launch import ending_together
from hgpu.tuning.ranks import joined
from hgpu.tuning.run import tune

jobs, root = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
with ending_together(), joined(jobs[0]["data_parallel"]) as ranks:
    for number, fields in enumerate(jobs):
        kinds = {"method": Method(fields["method"]), "sharding": Sharding(fields["sharding"])}
        job = TuneJob(**{**fields, **kinds, "targets": tuple(fields["targets"])})
        tune(job, root / str(number), lambda *_: None, lambda _: None, ranks)
