#!/usr/bin/env bash
# The whole chain on a machine without GPU, nothing faked: profile a small model with real vLLM on one
# core and on two, fit, plan, deploy real engines behind a real router, and set predicted beside measured.
# DEMO_FOLDER keeps what it makes; by default it goes when the demo ends.
set -euo pipefail
unset CI HGPU_RESULTS # a demo takes what it has just made, from where it has made it
runs=$(cd "$(dirname "$0")" && pwd)
work=${DEMO_FOLDER:-$(mktemp -d)}
mkdir -p "$work" && cd "$work"
name=
say() { printf '\n== %s (%ds)\n' "$1" "$SECONDS"; }
deployed() { hgpu status --json | python -c "import json, sys; print(json.load(sys.stdin)['deployments'][0]['$1'])"; }
leave() {
  if [ -n "$name" ]; then hgpu destroy "$name" || true; fi
  cd / && if [ -z "${DEMO_FOLDER:-}" ]; then rm -r "$work"; fi
}
trap leave EXIT

python -m hgpu.runtime.tiny_model model
cp "$runs/demo_vllm.yaml" spec.yaml

say 'profile both core counts with real vLLM'
hgpu profile spec.yaml --load-format dummy --budget 60
say 'fit'
hgpu fit
say 'plan'
hgpu plan spec.yaml
say 'deploy'
name=$(hgpu deploy latest --load-format dummy --json | python -c "import json, sys; print(json.load(sys.stdin)['name'])")
hgpu status
say 'predicted beside measured'
hgpu bench verify latest "$(deployed front_url)" --duration 60
say 'lineage'
hgpu show latest --kind bench --lineage
say 'destroy'
hgpu destroy "$name"
name=
