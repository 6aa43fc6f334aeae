"""hgpu's own deterministic results, held against baselines that a person blessed. Run by `make gate`.

    python benchmarks/gate/own.py            # exit 0 ok, 3 regressed, 4 not comparable, 5 changed: look
    python benchmarks/gate/own.py --bless    # these are right: make them the baselines

The cost of the demo's plan at three rates (at 1,000 requests/s a small change of a closed-form capacity shows
in the cost), attainment of the simulated fleet of the first, and the error of a fit on fixed samples of real
vLLM.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from hgpu.artifacts.resolve import resolve

HERE = Path(__file__).resolve().parent
BASELINES = HERE / "baselines"
SAMPLES = HERE.parents[1] / "tests" / "artifacts" / "golden" / "profile.v2"
RATES = (4, 64, 1000)
WORST_FIRST = (2, 1, 3, 4, 5)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bless", action="store_true", help="make these results the baselines")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made = results_of(Path(folder))
        if given.bless:
            bless(made)
            return 0
        codes = {compare(name, path, Path(folder)) for name, path in made.items()}
        return next((code for code in WORST_FIRST if code in codes), 0)


def results_of(root: Path) -> dict[str, Path]:
    """Return the artifacts to be judged, by the name of their baseline."""
    spec = root / "spec.yaml"
    hgpu("init", "serve", "--out", str(spec))
    sweep = f"rate={','.join(str(rate) for rate in RATES)}"
    plans = hgpu_json(root, "plan", str(spec), "--estimate", "--gap", "0", "--sweep", sweep)["sweep"]
    made = {f"plan-{rate}rps": Path(cell["path"]) for rate, cell in zip(RATES, plans, strict=True)}
    first = str(made[f"plan-{RATES[0]}rps"])
    made["simulation"] = Path(hgpu_json(root, "simulate", first)["path"])
    made["fit"] = Path(hgpu_json(root, "fit", str(SAMPLES))["fits"][0]["path"])
    return made


def compare(name: str, head: Path, root: Path) -> int:
    """Hold an artifact against its baseline: print what came of it, and return the exit code."""
    kind = head.parent.name
    base = resolve(BASELINES, f"@{name}", kind).path
    done = run("bench", "compare", str(base), str(head), "--results", str(root))
    lines = done.stdout.splitlines()
    print(
        f"{name}: {lines[0]}" if done.returncode == 0 else f"{name}: {done.stdout}{done.stderr}", flush=True
    )
    return done.returncode


def bless(made: dict[str, Path]) -> None:
    """Keep the artifacts as baselines, in the place of the old ones."""
    shutil.rmtree(BASELINES, ignore_errors=True)
    for name, path in made.items():
        kept = BASELINES / path.parent.name / path.name
        shutil.copytree(path, kept)
        hgpu("bench", "bless", str(kept), name, "--results", str(BASELINES))


def hgpu_json(root: Path, *words: str) -> dict[str, list[dict[str, str]]]:
    return json.loads(hgpu(*words, "--json", "--results", str(root)))


def hgpu(*words: str) -> str:
    """Run the program and return what it printed; stop where it fails."""
    done = run(*words)
    if done.returncode != 0:
        sys.exit(f"hgpu {' '.join(words)} failed with {done.returncode}:\n{done.stderr}")
    return done.stdout


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "hgpu", *words], capture_output=True, text=True)


if __name__ == "__main__":
    sys.exit(main())
