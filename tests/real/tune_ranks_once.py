"""One process of fine-tunes: runs jobs (a JSON file) one after the other.

Started by torchrun: tune_ranks_once.py JOBS ROOT. Each artifact lies under ROOT/NUMBER, and in kept-RANK
how many parameters lie in a process. A job with `end` is ended in all processes before that
step, and then begun again.
"""

import json
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from torch.distributed.tensor import DTensor

from hgpu.core.training import Method, Sharding
from hgpu.tuning.job import TuneJob
from hgpu.tuning.launch import ending_together
from hgpu.tuning.ranks import joined
from hgpu.tuning.run import tune
from hgpu.tuning.schedule import rate_at
from hgpu.tuning.sharded import shard


class Ended(Exception):
    """What a kill would do."""


def rate_until(end: int, step: int, *rest: int) -> float:
    if step == end:
        raise Ended
    return rate_at(step, *rest)


def shard_and_note(path: Path, model: Any, base: Any, *rest: Any) -> None:
    """Shard as `tune` does, and write how many parameters lie here."""
    shard(model, base, *rest)
    parts = [it.to_local() if isinstance(it, DTensor) else it for it in base.parameters()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(str(sum(part.numel() for part in parts)))


jobs, root = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
with ending_together(), joined(jobs[0]["job"]["data_parallel"]) as ranks:
    for number, row in enumerate(jobs):
        fields, end = row["job"], row["end"]
        kinds = {"method": Method(fields["method"]), "sharding": Sharding(fields["sharding"])}
        job = TuneJob(**{**fields, **kinds, "targets": tuple(fields["targets"])})
        given = (job, root / str(number), lambda *_: None, lambda _: None, ranks)
        if end:
            with suppress(Ended), patch("hgpu.tuning.train.rate_at", partial(rate_until, end)):
                tune(*given)
        noted = partial(shard_and_note, root / str(number) / f"kept-{ranks.number}")
        with patch("hgpu.tuning.sharded.shard", noted):
            tune(*given)
