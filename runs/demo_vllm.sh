#!/usr/bin/env bash
# The whole chain on a machine without GPU, nothing faked: profile a small model with real vLLM on one
# core and on two, fit, plan, deploy real engines behind a real router, and set predicted beside measured.
set -euo pipefail
unset CI # a demo takes what it has just made
work=$(mktemp -d)
started=$SECONDS
say() { printf '\n== %s (%ds)\n' "$1" $((SECONDS - started)); }
leave() {
  if [ -n "${name:-}" ]; then hgpu destroy "$name" --results "$work/results" || true; fi
  rm -r "$work"
}
trap leave EXIT

python -m hgpu.runtime.tiny_model "$work/model"
sed "s|MODEL|$work/model|" "$(dirname "$0")/demo_vllm.yaml" > "$work/spec.yaml"
export HGPU_RESULTS=$work/results

say 'profile both core counts with real vLLM'
hgpu profile "$work/spec.yaml" --load-format dummy
say 'fit'
hgpu fit
say 'plan'
hgpu plan "$work/spec.yaml"
say 'deploy'
hgpu deploy latest --load-format dummy
name=$(hgpu status --json | python -c 'import json,sys; print(json.load(sys.stdin)["deployments"][0]["name"])')
url=$(hgpu status --json | python -c 'import json,sys; print(json.load(sys.stdin)["deployments"][0]["front_url"])')
hgpu status
say 'predicted beside measured'
hgpu bench verify latest "$url" --duration 60
say 'lineage'
hgpu show latest --kind bench --lineage
say 'destroy'
hgpu destroy "$name"
name=
