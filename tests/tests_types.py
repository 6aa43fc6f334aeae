"""Types and cases that test modules share."""

import subprocess
from typing import Protocol


class Run(Protocol):
    """Runs the program with words and environment, and returns what it did."""

    def __call__(
        self, *words: str, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]: ...


# The toy of the Mélange release: published as 3 A10G + 1 A100-80GB = 6.70 USD/h.
MELANGE_TOY = {
    "gpu_info": {
        "A10G": {"cost": 1.01, "tputs": [[2, 1], [5, 2]]},
        "A100-80GB": {"cost": 3.67, "tputs": [[20, 20], [40, 20]]},
    },
    "workload_distribution": [[0.2, 0.1], [0.5, 0.2]],
    "total_request_rate": 30.0,
    "slice_factor": 1,
}
