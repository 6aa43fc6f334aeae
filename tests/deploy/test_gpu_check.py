"""A machine of EC2 looks at its GPUs before anything else: its own script, run by bash with stand-ins."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from hgpu.artifacts.store import load
from hgpu.catalog.gpus import gpu_types, nvml_names, resolve_gpu
from hgpu.deploy.render.aws import launch_template, user_data
from hgpu.deploy.render.document import RenderOptions

PLAN = load(Path(__file__).parent / "golden" / "render" / "plan").payload
OPTIONS = RenderOptions("chat", "0" * 12)
H100 = "NVIDIA H100 80GB HBM3, 81559 MiB"


def row_of(gpu, gpus):
    first = PLAN.allocation[0]
    machine = {"offer": "aws/p5.48xlarge", "gpu": gpu, "gpus_per_machine": gpus}
    return first.model_copy(update={**machine, "point": replace(first.point, gpu=gpu)})


class Machine:
    """A folder with all the commands that its script finds; `calls` has those with consequences."""

    def __init__(self, folder):
        self.folder, self.calls_file = folder, folder / "calls"
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.calls_file.touch()
        (self.bin / "mkdir").symlink_to(shutil.which("mkdir"))
        for name in ("shutdown", "docker", "aws"):
            self.command(name, f'echo "{name} $1" >> {self.calls_file}')

    def command(self, name, text):
        (self.bin / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.bin / name).chmod(0o755)

    def shows(self, lines, code=0):
        answer = "".join(f"echo '{line}'\n" for line in lines)
        asked = '[ "$*" = "--query-gpu=name,memory.total --format=csv,noheader" ] || exit 9'
        self.command("nvidia-smi", f"{asked}\n{answer}exit {code}")

    def boots(self, row):
        script = user_data(PLAN, row, OPTIONS)
        for path in ("/run/hgpu", "/var/lib/hgpu"):
            script = script.replace(path, f"{self.folder}{path}")
        words = [shutil.which("bash"), "-c", script]
        return subprocess.run(words, env={"PATH": str(self.bin)}, capture_output=True, text=True, check=False)

    def calls(self):
        return self.calls_file.read_text().split("\n")[:-1]


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


@pytest.mark.parametrize(("gpu", "lines"), [
    ("H100-SXM", [H100] * 8),
    ("L4", ["NVIDIA L4, 23034 MiB"]),
    ("A10G", ["NVIDIA A10G, 22731 MiB"]),  # an older driver keeps more for itself
    ("T4", ["Tesla T4, 15360 MiB"] * 4),
])  # fmt: skip
def test_the_planned_machine_serves(machine, gpu, lines):
    machine.shows(lines)
    row = row_of(gpu, len(lines))
    done = machine.boots(row)
    assert done.returncode == 0, done.stderr
    assert f"the GPUs are as planned: {len(lines)} of {gpu}" in done.stdout
    assert machine.calls() == ["aws secretsmanager", *["docker run"] * len(lines)]


@pytest.mark.parametrize(("lines", "said"), [
    (["NVIDIA A100-SXM4-80GB, 81920 MiB"] * 2, "a GPU 'NVIDIA A100-SXM4-80GB'"),
    ([H100, "NVIDIA H100 PCIe, 81559 MiB"], "a GPU 'NVIDIA H100 PCIe'"),
    (["NVIDIA H100, 81559 MiB"] * 2, "a GPU 'NVIDIA H100'"),
    ([H100], "1 GPUs"),
    ([H100] * 3, "3 GPUs"),
    ([], "a GPU ''"),
    (["No devices were found"], "a GPU 'No devices were found'"),
    ([H100, "NVIDIA H100 80GB HBM3, 40960 MiB"], "a NVIDIA H100 80GB HBM3 with ' 40960 MiB'"),
    ([H100, "NVIDIA H100 80GB HBM3, [N/A]"], "with ' [N/A]'"),
    (["NVIDIA H100 80GB HBM3"] * 2, "with ''"),
])  # fmt: skip
def test_another_machine_says_so_and_ends_before_it_has_a_secret(machine, lines, said):
    machine.shows(lines)
    done = machine.boots(row_of("H100-SXM", 2))
    assert done.returncode == 1 and machine.calls() == ["shutdown -h"]
    assert f"{said} where 2 of H100-SXM was planned: shutting down" in done.stderr


def test_a_driver_that_fails_ends_the_machine_whatever_it_lists(machine):
    machine.shows([H100] * 2, code=15)
    done = machine.boots(row_of("H100-SXM", 2))
    assert done.returncode == 1 and machine.calls() == ["shutdown -h"]
    assert "hgpu: nvidia-smi fails" in done.stderr


def test_no_driver_at_all_ends_the_machine(machine):
    done = machine.boots(row_of("H100-SXM", 2))
    assert done.returncode == 1 and machine.calls() == ["shutdown -h"]
    assert "nvidia-smi: command not found" in done.stderr and "hgpu: nvidia-smi fails" in done.stderr


def test_a_shutdown_is_the_end_of_a_machine_of_any_market():
    for market in ("on_demand", "spot"):
        row = row_of("H100-SXM", 2).model_copy(update={"market": market})
        data = launch_template(PLAN, row, OPTIONS, "")["LaunchTemplateData"]
        assert data["InstanceInitiatedShutdownBehavior"] == "terminate"


def test_every_nvidia_type_of_the_catalog_has_a_name_that_leads_back_to_it():
    for name, gpu in gpu_types().items():
        names = nvml_names(name)
        assert all(resolve_gpu(known).name == name for known in names)
        assert bool(names) == (gpu.vendor == "nvidia")
