#!/usr/bin/env bash
# The picture of the README: the page of the demo's plan at 64 requests/s, as Chromium shows it.
set -euo pipefail
picture=$(realpath "$(dirname "$0")/..")/docs/img/plan.png
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome) ||
  { echo 'error: no Chromium here; fix: apt-get install chromium' >&2; exit 2; }

cd "$work"
export HGPU_RESULTS=$work/results
hgpu init serve --out spec.yaml
sed -i 's/rate_rps: 4 /rate_rps: 64/' spec.yaml
env --unset=CI hgpu plan spec.yaml --estimate --explain --prove --requests 4000 > plan.txt
env --unset=CI hgpu simulate latest --rates 0.5,0.8,1,1.2,1.4,1.6 --requests 4000 > simulation.txt || [ $? -eq 3 ]
env --unset=CI hgpu report latest --kind plan --out plan.html
mkdir -p "$(dirname "$picture")"
"$browser" --headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking \
  --disable-component-update --disable-sync --hide-scrollbars --user-data-dir="$work/profile" \
  --window-size=1000,1175 --screenshot="$picture" "file://$work/plan.html" 2> browser.txt
ls -l "$picture"
