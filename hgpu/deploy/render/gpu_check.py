"""A machine's first question to itself: are these the GPUs that the plan was solved for?"""

import math
import shlex

from hgpu.artifacts.payloads.plan import AllocationRow
from hgpu.catalog.gpus import nvml_names, resolve_gpu

LEAST_MEMORY = 0.95  # of the catalog's: drivers and error correction take a few percent more or less
_MIB = 2**20


def gpu_check(row: AllocationRow) -> list[str]:
    """Return the shell commands that shut a machine down whose GPUs aren't the planned ones.

    What `nvidia-smi` lists is held against the catalog's NVML names, memory and the offer's count. The
    machine's launch template makes a shutdown its end, so a wrong machine never serves; cloud-init passes
    what is said here to the console, where EC2 keeps it when the machine is gone.
    """
    gpu = resolve_gpu(row.gpu)
    names = "|".join(shlex.quote(name) for name in nvml_names(row.gpu))
    least_mib = math.floor(LEAST_MEMORY * gpu.memory_bytes / _MIB)
    planned = shlex.quote(f"{row.gpus_per_machine} of {gpu.name}")
    return f"""\
planned={planned}
wrong() {{
  echo "hgpu: $1 where $planned was planned: shutting down" >&2
  shutdown -h now
  exit 1
}}
gpus=$(nvidia-smi --query-gpu=name,memory.total --format=csv,noheader) || wrong "nvidia-smi fails"
count=0
while IFS=, read -r name memory; do
  case $name in {names}) ;; *) wrong "a GPU '$name'" ;; esac
  mib=${{memory//[!0-9]/}}
  (( ${{mib:-0}} >= {least_mib} )) || wrong "a $name with '$memory'"
  count=$((count + 1))
done <<< "$gpus"
(( count == {row.gpus_per_machine} )) || wrong "$count GPUs"
echo "hgpu: the GPUs are as planned: $planned\"""".splitlines()
