#!/usr/bin/env bash
# The main job on the embedded default: plan Llama 3.1 8B for the chat workload, from estimates.
set -euo pipefail
spec=$(mktemp -d)/spec.yaml
trap 'rm -r "$(dirname "$spec")"' EXIT

hgpu init serve --out "$spec"
hgpu plan "$spec" --estimate --sweep rate=1,4,16,64 --sweep slo.tpot_ms=40,120
echo
echo 'where the last plan comes from (hgpu show latest --lineage):'
env --unset=CI hgpu show latest --kind plan --lineage
