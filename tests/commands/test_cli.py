import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests_types import Run

from hgpu.cli import COMMANDS

HEAVY = (
    "torch",
    "vllm",
    "boto3",
    "pandas",
    "pulp",
    "highspy",
    "scipy",
    "numpy",
    "pyarrow",
    "transformers",
    "ray",
    "aiohttp",
    "jinja2",
    "matplotlib",
)


@pytest.mark.parametrize("name", [None, *COMMANDS])
def test_help_imports_nothing_heavy(name: str | None) -> None:
    words = [name, "--help"] if name else ["--help"]
    script = f"""
import sys
from hgpu.cli import app
try:
    app({words!r})
except SystemExit as stop:
    assert stop.code == 0, stop.code
print("LOADED", [m for m in {HEAVY!r} if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "LOADED []"
    assert name is None or "Example: hgpu" in done.stdout or name == "bench"


@pytest.mark.parametrize("words", [["list"], ["show", "ffff"], ["gpus"], ["plan", "none.yaml"], ["status"]])
def test_light_commands_do_not_load_torch_vllm_or_the_solver(words: list[str], tmp_path: Path) -> None:
    script = f"""
import sys
sys.argv = ["hgpu", *{words!r}]
from hgpu.cli import main
try:
    main()
except SystemExit:
    pass
print("LOADED", [m for m in ("torch", "vllm", "boto3", "pandas", "pulp", "highspy") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.strip().splitlines()[-1] == "LOADED []", done.stderr


def test_planning_does_not_load_torch_vllm_or_boto3(tmp_path: Path) -> None:
    script = """
import sys
from hgpu.cli import app
for words in (["init", "serve", "--out", "spec.yaml"], ["plan", "spec.yaml"]):
    try:
        app(words)
    except SystemExit as stop:
        assert stop.code == 0, stop.code
print("LOADED", [m for m in ("torch", "vllm", "boto3") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.strip().splitlines()[-1] == "LOADED []", done.stderr


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["nonsense"], 2, "unknown command 'nonsense'"),
        (["plan"], 2, "one of SPEC and --melange"),
        (["plan", "none.yaml"], 2, "can't read spec"),
        (["plan", "--melange", "none.json"], 2, "can't read"),
        (["gpus", "H100-SMX"], 2, "H100-SXM"),
        (["gpus", "--book", "nowhere"], 2, "price book"),
        (["init", "serv"], 2, "did you mean serve"),
        (["list", "plans"], 2, "did you mean plan"),
        (["show", "nothing"], 2, "no artifact"),
        (["fit"], 2, "nothing to fit"),
        (["fit", "ffffff"], 2, "no artifact with digest"),
        (["profile", "none.yaml"], 2, "can't read spec"),
        (["profile", "memory", "--node", "77"], 2, "memory node 77 can't be measured here"),
        (["profile", "memory", "--sysfs", "none"], 2, "can't read the memory nodes under none"),
        (["deploy", "ffffff"], 2, "no artifact with digest"),
        (["destroy", "nothing"], 2, "unknown deployment"),
        (["bench", "verify", "ffffff", "http://127.0.0.1:1"], 2, "no artifact with digest"),
        (["bench", "run", "http://127.0.0.1:1", "--rate", "1"], 1, "check the URL"),
        (["deploy", "latest", "--target", "k8s"], 2, "no artifact under results"),
        (["destroy", "nothing"], 2, "there is none at all"),
        (["pln"], 2, "did you mean plan"),
    ],
)
def test_bad_input_is_a_short_error_with_the_right_exit_code(
    hgpu: Run, words: list[str], code: int, text: str
) -> None:
    done = hgpu(*words)
    assert done.returncode == code, done.stderr
    assert text in done.stderr and "Traceback" not in done.stderr


def test_a_reader_that_goes_away_is_no_crash(tmp_path: Path) -> None:
    """`hgpu gpus | head -1` with pipefail must not look like exit code 1."""
    program = subprocess.Popen(
        [sys.executable, "-c", "input(); from hgpu.cli import main; main()", "gpus"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    assert program.stdout is not None
    program.stdout.close()
    program.stdout = None
    assert program.communicate("go\n", timeout=60) == (None, "")
    assert program.returncode == 141


def test_a_terminal_that_has_no_unicode_is_printed_to(hgpu: Run) -> None:
    done = hgpu("show", "no\u2264thing", env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 2 and "no artifact 'no?thing'" in done.stderr
    done = hgpu("plan", "--help", env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr


def test_an_interrupt_says_that_work_is_kept(tmp_path: Path) -> None:
    """Typer catches Ctrl-C itself, and says nothing."""
    script = """
import sys
from hgpu.cli import main
class Interrupted:
    def __iter__(self):
        raise KeyboardInterrupt
sys.stdin, sys.argv = Interrupted(), ["hgpu", "doctor", "--replay", "-"]
main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (130, "interrupted; finished work is kept\n")


def test_init_does_not_overwrite(hgpu: Run, tmp_path: Path) -> None:
    assert hgpu("init", "serve", "--out", "a.yaml").returncode == 0
    (tmp_path / "a.yaml").write_text("mine")
    done = hgpu("init", "serve", "--out", "a.yaml")
    assert done.returncode == 2 and (tmp_path / "a.yaml").read_text() == "mine"
    assert hgpu("init", "serve", "--out", "a.yaml", "--force").returncode == 0


def test_gpus_json_has_every_type_and_offer(hgpu: Run) -> None:
    document = json.loads(hgpu("gpus", "--json").stdout)
    assert {row["name"] for row in document["types"]} >= {
        "L4",
        "A10G",
        "A100-80GB",
        "H100-SXM",
        "MI300X",
        "CPU",
    }
    assert all(offer["price_date"] and offer["source"] for offer in document["offers"])


def test_version(hgpu: Run) -> None:
    assert hgpu("--version").stdout.startswith("hgpu 0.")


def test_profile_and_fit_without_an_engine_are_estimates_end_to_end(hgpu: Run, tmp_path: Path) -> None:
    hgpu("init", "serve", "--out", "spec.yaml")
    spec = tmp_path / "spec.yaml"
    spec.write_text(spec.read_text().replace("# modes: [mixed, pd]", "modes: [mixed, pd]"))
    profiled = hgpu("profile", "spec.yaml", "--profiler", "estimate", "--gpu", "L4", "--json")
    assert profiled.returncode == 0, profiled.stderr
    (row,) = json.loads(profiled.stdout)["profiles"]  # mode pd takes the same steps
    assert row["provenance"] == "estimated" and row["assumptions"]["compute"] > 0
    fitted = hgpu("fit", row["digest"][:12], "--json")
    made = json.loads(fitted.stdout)["fits"][0]
    assert made["latency"]["provenance"] == "estimated"
    assert (tmp_path / made["path"] / "fit.png").read_bytes().startswith(b"\x89PNG")
    assert "L4" in hgpu("show", "latest").stdout
    assert "KV tokens" in hgpu("show", row["digest"][:12]).stdout
    refused = hgpu("profile", "spec.yaml", "--profiler", "vllm", "--gpu", "L4")
    assert refused.returncode == 2 and "isn't attached here" in refused.stderr
