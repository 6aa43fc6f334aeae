"""`hgpu plan` of fine-tunes, as a user calls it, and what reads the job that it keeps."""

import json
from pathlib import Path

import pytest
from tests_types import Run

from hgpu.artifacts.store import Draft, load, save
from hgpu.catalog.models import load_model
from hgpu.core.gpu import DType

SPEC = """kind: finetune
model: Llama-3.2-1B
method: [lora, lamda]
context: 1024
batch: 8
tokens: 10000000
gpus: L4
offers: {clouds: [aws]}
data: train.jsonl
"""
SERVICE = """kind: serve
model: Llama-3.2-1B
workload: {lengths: chat, rate_rps: 1}
slo: {tpot_ms: 120}
gpus: [L4]
offers: {clouds: [aws]}
"""
SYSFS = Path(__file__).parents[1] / "profilers" / "sysfs" / "cxl"


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "tune.yaml"
    path.write_text(SPEC)
    return path


def test_the_template_is_planned_shown_and_reported(hgpu: Run, tmp_path: Path) -> None:
    assert hgpu("init", "finetune", "--out", "finetune.yaml").returncode == 0
    planned = hgpu("plan", "finetune.yaml")
    assert planned.returncode == 0, planned.stderr
    assert "runner-up" in planned.stdout and "what binds" in planned.stdout
    assert "activations are estimated" in planned.stderr
    shown = hgpu("show", "latest", "--kind", "job")
    assert shown.returncode == 0 and "GiB on each GPU" in shown.stdout
    assert hgpu("report", "latest", "--kind", "job", "--out", "job.html").returncode == 0
    page = (tmp_path / "job.html").read_text()
    assert "Qwen2.5-7B" in page and "optimizer step" in page


def test_the_same_plan_has_the_same_digest(hgpu: Run, spec: Path) -> None:
    first, again = (json.loads(hgpu("plan", str(spec), "--json").stdout) for _ in range(2))
    assert first["digest"] == again["digest"]
    assert first["choice"]["gpu"] == "L4" and first["provenance"] == "estimated"
    assert first["activations"]["provenance"] == "estimated"


def test_a_plan_is_what_tune_trains_and_set_goes_over_it(hgpu: Run, spec: Path, tmp_path: Path) -> None:
    digest = json.loads(hgpu("plan", str(spec), "--json").stdout)["digest"]
    done = hgpu("tune", digest[:12])
    assert done.returncode == 2 and "no data at train.jsonl" in done.stderr
    assert f"training what plan {digest[:12]} chose: l" in done.stderr
    (tmp_path / "train.jsonl").write_text('{"text": "words"}\n')
    done = hgpu("tune", "latest", "--set", "tensor_parallel=2")
    assert done.returncode == 2 and "doesn't split layers over 2" in done.stderr
    done = hgpu("tune", "latest", "--set", "contexts=2")
    assert done.returncode == 2 and f"plan {digest[:12]}: bad contexts" in done.stderr
    assert "did you mean context?" in done.stderr
    done = hgpu("tune", "nothing-planned")
    assert done.returncode == 2 and "is no path, no digest" in done.stderr


def test_a_deadline_that_nothing_keeps_says_which_would_do(hgpu: Run, spec: Path) -> None:
    spec.write_text(SPEC + "deadline_h: 0.01\n")
    done = hgpu("plan", str(spec), "--json")
    document = json.loads(done.stdout)
    assert done.returncode == 3 and document["status"] == "infeasible"
    assert "deadline_h alone stands in the way" in document["why"]
    assert "raise deadline_h to" in document["fix"] and "USD" in document["fix"]


def test_jobs_share_limits_with_each_other_and_with_a_plan_beside_them(hgpu: Run, spec: Path) -> None:
    other = spec.with_name("other.yaml")
    for path in (spec, other):
        path.write_text(SPEC + "limits: {L4: 1}\n")
    both = hgpu("plan", str(spec), str(other))
    assert both.returncode == 3 and "limits L4" in both.stderr
    for path in (spec, other):
        path.write_text(SPEC + "limits: {L4: 2}\n")
    service = spec.with_name("service.yaml")
    service.write_text(SERVICE)
    served = json.loads(hgpu("plan", str(service), "--json").stdout)
    assert [row["count"] for row in served["allocation"]] == [1]
    beside = hgpu("plan", str(spec), str(other), "--beside", served["digest"][:12])
    assert beside.returncode == 3 and "limits L4: 2, 1 of it used beside" in beside.stderr
    assert "raise limits L4 to 3 (" in beside.stderr
    assert len(json.loads(hgpu("plan", str(spec), str(other), "--json").stdout)["jobs"]) == 2


def test_a_service_is_planned_beside_a_job_that_runs_and_the_job_is_in_its_lineage(
    hgpu: Run, spec: Path
) -> None:
    job = json.loads(hgpu("plan", str(spec), "--json").stdout)
    ref, machines = job["digest"][:12], job["choice"]["machines"]
    service = spec.with_name("service.yaml")
    service.write_text(SERVICE + f"limits: {{L4: {machines}}}\n")
    assert hgpu("plan", str(service)).returncode == 0
    full = hgpu("plan", str(service), "--beside", ref)
    assert full.returncode == 3 and f"'L4: {machines}, {machines} of it used beside' to 2" in full.stderr
    service.write_text(SERVICE + f"limits: {{L4: {machines + 1}}}\n")
    planned = hgpu("plan", str(service), "--beside", ref, "--beside", ref, "--json")
    assert planned.returncode == 0, planned.stderr
    shown = hgpu("show", json.loads(planned.stdout)["digest"][:12], "--lineage")
    assert "beside" in shown.stdout and ref in shown.stdout
    other = hgpu("profile", "memory", "--sysfs", str(SYSFS), "--json")
    wrong = hgpu("plan", str(service), "--beside", json.loads(other.stdout)["digest"][:12])
    assert wrong.returncode != 0 and "is a memory" in wrong.stderr


def test_named_activations_are_those_of_the_model_and_format_or_refused(hgpu: Run, spec: Path) -> None:
    golden = load(Path(__file__).parents[1] / "artifacts" / "golden" / "activations.v1").payload
    payload = golden.model_copy(update={"model": load_model("Qwen2.5-7B"), "dtype": DType.BF16})
    measured = str(save(spec.parent / "results", Draft("activations", "qwen", payload)).path)
    refused = hgpu("plan", str(spec), "--activations", measured)
    assert refused.returncode == 2 and "of another model or format" in refused.stderr
    assert "Qwen/Qwen2.5-7B in bf16" in refused.stderr
    other = spec.with_name("other.yaml")
    other.write_text(SPEC.replace("Llama-3.2-1B", "Qwen2.5-7B").replace("gpus: L4", "gpus: H100-SXM"))
    both = hgpu("plan", str(spec), str(other), "--activations", measured, "--json")
    assert both.returncode == 0, both.stderr
    inputs = [hgpu("show", job["digest"][:12], "--lineage").stdout for job in json.loads(both.stdout)["jobs"]]
    assert ["activations" in text for text in inputs] == [False, True]


def test_a_job_is_planned_beside_another_job(hgpu: Run, spec: Path) -> None:
    spec.write_text(SPEC + "limits: {L4: 1}\n")
    job = json.loads(hgpu("plan", str(spec), "--json").stdout)
    again = hgpu("plan", str(spec), "--beside", job["digest"][:12])
    assert again.returncode == 3 and "raise limits L4 to 2 (" in again.stderr


def test_options_and_specs_of_other_plans_are_refused(hgpu: Run, spec: Path) -> None:
    prove = hgpu("plan", str(spec), "--prove")
    assert prove.returncode == 2 and "--prove: not of plans of fine-tunes" in prove.stderr
    service = spec.with_name("service.yaml")
    assert hgpu("init", "serve", "--out", str(service)).returncode == 0
    mixed = hgpu("plan", str(spec), str(service))
    assert mixed.returncode == 2 and "--beside" in mixed.stderr
    foreign = hgpu("plan", str(service), "--activations", "latest")
    assert foreign.returncode == 2 and "of fine-tunes" in foreign.stderr
    gpu = hgpu("profile", str(spec), "--gpu", "L4")
    assert gpu.returncode == 2 and "--gpu" in gpu.stderr


def test_without_torch_profiling_activations_says_what_to_install(hgpu: Run, spec: Path) -> None:
    blocked = spec.parent / "blocked"
    for name in ("torch", "transformers", "peft"):
        (blocked / name).mkdir(parents=True)
        (blocked / name / "__init__.py").write_text(f"raise ImportError('none', name='{name}')")
    spec.write_text(SPEC.replace("[lora, lamda]", "full"))
    root = Path(__file__).parents[2]
    done = hgpu("profile", str(spec), env={"PYTHONPATH": f"{blocked}:{root}"})
    assert done.returncode == 2 and "hgpu[tune]" in done.stderr


def test_a_plan_becomes_files_for_a_cluster_and_for_skypilot(hgpu: Run, spec: Path, tmp_path: Path) -> None:
    assert hgpu("plan", str(spec)).returncode == 0
    bare = hgpu("deploy", "latest", "--target", "kubernetes", "--dry-run", "--out", "objects")
    assert bare.returncode == 2 and "--image" in bare.stderr
    words = ["--target", "kubernetes", "--image", "registry/tune:1", "--dry-run", "--out", "objects"]
    done = hgpu("deploy", "latest", *words)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "objects").iterdir()) == ["files.yaml", "job.yaml"]
    assert hgpu("deploy", "latest", "--target", "sky", "--dry-run", "--out", "task").returncode == 0
    launched = hgpu("deploy", "latest", "--target", "sky")
    assert launched.returncode == 2 and "--dry-run" in launched.stderr


def test_a_measured_or_recorded_memory_is_what_tensors_are_placed_in(hgpu: Run, spec: Path) -> None:
    memory = json.loads(hgpu("profile", "memory", "--sysfs", str(SYSFS), "--json").stdout)
    tiered = SPEC.replace("[lora, lamda]", "full") + "offload: tiered\ncheckpointing: true\n"
    spec.write_text(f"{tiered}host: {{profile: {memory['digest'][:12]}}}\n")
    done = hgpu("plan", str(spec), "--json")
    assert done.returncode == 0, done.stderr
    job = json.loads(done.stdout)
    tiers = set(job["placement"][0]["bytes_by_tier"])
    assert {"dram0", "cxl2", "cxl3"} == tiers
    assert job["placement_gap"]["proven"]
    lineage = hgpu("show", job["digest"][:12], "--lineage")
    assert memory["digest"][:12] in lineage.stdout
    spec.write_text(f"{tiered}host: {{profile: latest, bandwidth_gb_s: 100}}\n")
    assert "leave out what else is said" in hgpu("plan", str(spec)).stderr


def test_a_memory_that_was_not_measured_well_is_refused(hgpu: Run, spec: Path) -> None:
    words = ("profile", "memory", "--repeats", "2", "--array-mib", "1", "--adam", "0.01", "--json")
    memory = json.loads(hgpu(*words).stdout)
    spec.write_text(f"{SPEC}offload: zero3\nhost: {{profile: {memory['digest'][:12]}}}\n")
    done = hgpu("plan", str(spec))
    assert done.returncode == 2 and "isn't valid" in done.stderr
