"""Profiling on a Ray cluster of several nodes on this machine; a stand-in measures instead of vLLM."""

import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest

pytest.importorskip("ray")

from hgpu.artifacts.resolve import entries
from hgpu.artifacts.store import load
from hgpu.catalog.gpus import gpu_types, resolve_gpu
from hgpu.catalog.models import load_model
from hgpu.commands import ray_profiling
from hgpu.commands.profile_request import Request
from hgpu.commands.profiling import profile_points
from hgpu.core.errors import EngineError, HgpuError, InputError
from hgpu.core.operating_point import OperatingPoint
from hgpu.core.provenance import Provenance
from hgpu.core.step import prefill_batch
from hgpu.profilers import ray_home, ray_node
from hgpu.profilers.journal import Failure, Header, Journal, Run, Skip, append, read
from hgpu.profilers.ray_cluster import RAY_NAMES
from hgpu.profilers.ray_fanout import fan_out
from hgpu.profilers.result import ProfileResult
from hgpu.profilers.samples import merge_steps
from hgpu.profilers.vllm import VllmJob, journal_path

# Ray's own: pipes and logs that it leaves to the garbage collector, and its advice about devices.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:Tip. In future versions of Ray:FutureWarning"),
]

MODEL = "meta-llama/Llama-3.2-1B"
POINTS = [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
TIMEOUT_S = 60.0


def job_of(gpu: str, tp: int = 1) -> VllmJob:
    model = load_model(MODEL)
    point = OperatingPoint(resolve_gpu(gpu).name, tp, dtype=model.weight_dtype)
    return VllmJob(MODEL, model, resolve_gpu(gpu), point, "dummy")


def silent(*_: object) -> None:
    pass


# Stand-ins for vLLM: they run on the nodes.


def measure(job: VllmJob, folder: Path, progress) -> ProfileResult:
    """Journal what is missing; the result's problems say where this ran, its assumptions how often."""
    path = journal_path(job, folder)
    path.parent.mkdir(exist_ok=True)
    if read(path, job.key).header is None:
        append(path, Header(job.key, "stand-in 1", "", "a machine", 4096, 1024))
        append(path, Skip("c", "too long"))
        append(path, Failure("d", 0, "out of memory"))
    missing = [point for point in POINTS if point not in read(path, job.key).points]
    for script, repeat in missing:
        steps = ((prefill_batch(16), 0.25 + repeat), (prefill_batch(32), 0.5 + repeat))
        append(path, Run(script, repeat, steps))
        progress(len(read(path, job.key).runs), len(POINTS), script)
    return result_of(job, path, len(missing))


def result_of(job: VllmJob, path: Path, measured: int) -> ProfileResult:
    import ray

    journal = read(path, job.key)
    runs = sorted(journal.runs, key=lambda run: run.repeat)
    node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else "home"
    return ProfileResult(
        "vllm",
        Provenance.MEASURED,
        tuple(
            sample
            for name in ("a", "b")
            for sample in merge_steps(name, [run.steps for run in runs if run.script == name])
        ),
        4096,
        journal.header.engine,
        problems=(node, os.environ.get("CUDA_VISIBLE_DEVICES", ""), str(job.gpus), str(job.cores)),
        assumptions={"measured": measured},
    )


def meeting(folder: Path, names: list[str], job: VllmJob, scratch: Path, progress) -> ProfileResult:
    """Measure once the other type has come: both must be running at once."""
    mine, other = (next(n for n in names if (n == job.gpu.name) is same) for same in (True, False))
    pipes = {name: os.open(folder / name, os.O_RDWR) for name in names}
    os.write(pipes[other], b"!")
    if not select.select([pipes[mine]], [], [], 60)[0]:
        raise EngineError("the other type did not come")
    return measure(job, scratch, progress)


def half(die: bool, job: VllmJob, folder: Path, progress) -> ProfileResult:
    """On a fresh journal finish two points, say where, then die or hang; else go on as usual."""
    import ray

    fresh = read(journal_path(job, folder), job.key).header is None

    def tell(done: int, total: int, at: str) -> None:
        progress(done, total, ray.get_runtime_context().get_node_id())
        if fresh and done == 2:
            os.kill(os.getpid(), signal.SIGKILL) if die else threading.Event().wait()

    return measure(job, folder, tell)


def dying(job: VllmJob, folder: Path, progress) -> ProfileResult:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def failing_on(gpu: str, job: VllmJob, folder: Path, progress) -> ProfileResult:
    """Fail as vLLM does, with a log."""
    if job.gpu.name != gpu:
        return measure(job, folder, progress)
    path = journal_path(job, folder)
    measure(job, folder, silent)
    path.with_suffix(".log").write_text("out of memory")
    raise EngineError("vLLM failed", "out of memory", f"see '{path.with_suffix('.log')}'")


@pytest.fixture(scope="module")
def cluster() -> Iterator:
    """A head with CPUs, nodes of A100 and L4, two of T4; in the end no process of it is left."""
    import ray
    from ray.cluster_utils import Cluster

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    folder = tempfile.mkdtemp(prefix="ray-")  # short: Ray makes sockets in it
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_TMPDIR", folder)
        patch.setenv("TMPDIR", folder)
        patch.delenv("RAY_ADDRESS", raising=False)
        made = Cluster()
        try:
            made.add_node(num_cpus=2, include_dashboard=False)
            for name, gpus in (("A100", 2), ("L4", 1), ("T4", 1), ("T4", 1)):
                made.add_node(num_cpus=1, num_gpus=gpus, resources={f"accelerator_type:{name}": 1})
            yield made
        finally:
            made.shutdown()
            _, alive = psutil.wait_procs(processes_of(folder), timeout=30)
            shutil.rmtree(folder, ignore_errors=True)
            ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert alive == []


def processes_of(folder: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get("RAY_TMPDIR") == folder:
                found.append(process)
        except psutil.Error:
            continue
    return found


def nodes_of(cluster, name: str) -> list:
    return [
        node for node in cluster.worker_nodes if f"accelerator_type:{name}" in str(node._ray_params.resources)
    ]


def test_types_run_at_once_each_on_its_node_with_its_devices(cluster, tmp_path: Path) -> None:
    names = ["A100-80GB", "L4"]
    for name in names:
        os.mkfifo(tmp_path / name)
    jobs = [job_of("A100-80GB", tp=2), job_of("L4")]
    outcomes = fan_out(
        jobs, cluster.address, tmp_path, silent, TIMEOUT_S, measure=partial(meeting, tmp_path, names)
    )
    assert [outcomes[job.point].problems for job in jobs] == [
        (nodes_of(cluster, "A100")[0].node_id, "0,1", "(0, 1)", "()"),
        (nodes_of(cluster, "L4")[0].node_id, "0", "(0,)", "()"),
    ]


def test_results_and_journals_equal_those_of_a_local_run(cluster, tmp_path: Path) -> None:
    job = job_of("cpu-1core")
    seen = []
    (tmp_path / "home").mkdir()
    away = fan_out(
        [job], cluster.address, tmp_path, lambda *event: seen.append(event), TIMEOUT_S, measure=measure
    )
    local = measure(job, tmp_path / "home", silent)
    first_core = min(os.sched_getaffinity(0))
    assert replace(away[job.point], problems=()) == replace(local, problems=())
    assert away[job.point].problems[3] == f"({first_core},)"
    assert read(journal_path(job, tmp_path), job.key) == read(journal_path(job, tmp_path / "home"), job.key)
    assert seen == [(0, 0, "cpu-1core: waiting for a node")] + [
        (done, 4, f"cpu-1core: {script}") for done, (script, _) in enumerate(POINTS, start=1)
    ]


def test_a_complete_journal_is_not_measured_again(cluster, tmp_path: Path) -> None:
    job = job_of("L4")
    first, second = (
        fan_out([job], cluster.address, tmp_path, silent, TIMEOUT_S, measure=measure)[job.point]
        for _ in range(2)
    )
    assert (first.assumptions["measured"], second.assumptions["measured"]) == (4, 0)
    assert second.samples == first.samples


def test_a_type_that_is_not_there_times_out_and_names_those_that_are(cluster, tmp_path: Path) -> None:
    jobs = [job_of("H200", tp=2), job_of("H200")]
    outcomes = fan_out(jobs, cluster.address, tmp_path, silent, 1.0, measure=measure)
    for job in jobs:
        error = outcomes[job.point]
        assert isinstance(error, EngineError)
        assert "found no place on the Ray cluster in 1 s" in error.what
        assert "A100 (2), L4 (1), T4 (2)" in error.why


def test_a_killed_task_goes_on_where_it_stopped(cluster, tmp_path: Path) -> None:
    job = job_of("L4")
    outcome = fan_out([job], cluster.address, tmp_path, silent, TIMEOUT_S, measure=partial(half, True))[
        job.point
    ]
    # The second point's news may or may not have left the process before it was killed.
    assert outcome.assumptions["measured"] in (2, 3, 4)
    assert len(outcome.samples) == 4
    runs = read(journal_path(job, tmp_path), job.key).runs
    assert [(run.script, run.repeat) for run in runs] == POINTS


def test_retries_are_bounded(cluster, tmp_path: Path) -> None:
    job = job_of("L4")
    error = fan_out([job], cluster.address, tmp_path, silent, TIMEOUT_S, 1, dying)[job.point]
    assert isinstance(error, EngineError)
    assert error.what == "L4 lost its node 2 times"
    assert "0 finished points are kept" in error.fix


def test_a_type_that_fails_leaves_the_others_alone(cluster, tmp_path: Path) -> None:
    jobs = [job_of("A100-80GB"), job_of("L4")]
    outcomes = fan_out(jobs, cluster.address, tmp_path, silent, TIMEOUT_S, measure=partial(failing_on, "L4"))
    assert isinstance(outcomes[jobs[0].point], ProfileResult)
    error = outcomes[jobs[1].point]
    log = journal_path(jobs[1], tmp_path).with_suffix(".log")
    assert isinstance(error, EngineError)
    assert error.why.startswith("out of memory (on node ")
    assert error.fix == f"see '{log}'"
    assert log.read_text() == "out of memory"
    assert len(read(journal_path(jobs[1], tmp_path), jobs[1].key).runs) == 4
    assert list(Path(os.environ["TMPDIR"]).glob("hgpu-ray-*")) == []


def test_the_command_saves_what_succeeds_and_names_what_fails(
    cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_profiling, "fan_out", partial(fan_out, measure=partial(failing_on, "L4")))
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        f"kind: serve\nmodel: {MODEL}\ngpus: [L4, A100-80GB]\n"
        "workload: {lengths: chat, rate_rps: 1}\nslo: {tpot_ms: 100}\n"
    )
    request = Request(tmp_path, ray=cluster.address)
    with pytest.raises(EngineError, match=r"1 of 2 profiles failed: L4; why: vLLM failed: out of memory"):
        profile_points(spec, None, request)
    (entry,) = entries(tmp_path, "profile")
    artifact = load(entry.path)
    assert artifact.payload.point.gpu == "A100-80GB"
    assert artifact.payload.provenance is Provenance.MEASURED
    assert not journal_path(job_of("A100-80GB"), tmp_path).exists()


def test_an_interrupt_leaves_no_task_behind(cluster, tmp_path: Path) -> None:
    def interrupt(done: int, *_: object) -> None:
        if done == 2:
            raise KeyboardInterrupt

    job = job_of("L4")
    with pytest.raises(KeyboardInterrupt):
        fan_out([job], cluster.address, tmp_path, interrupt, TIMEOUT_S, measure=partial(half, False))
    outcome = fan_out([job], cluster.address, tmp_path, silent, TIMEOUT_S, measure=measure)[job.point]
    assert outcome.assumptions["measured"] == 2  # the device is free again, and two points are home


def test_a_lost_node_costs_nothing_that_is_home(cluster, tmp_path: Path) -> None:
    killed = []

    def watch(done: int, _: int, at: str) -> None:
        if done == 2 and not killed:
            killed.append(at.partition(": ")[2])
            (node,) = (node for node in cluster.worker_nodes if node.node_id == killed[0])
            cluster.remove_node(node, allow_graceful=False)

    job = job_of("T4")
    outcome = fan_out([job], cluster.address, tmp_path, watch, TIMEOUT_S, measure=partial(half, False))[
        job.point
    ]
    assert outcome.problems[0] == nodes_of(cluster, "T4")[0].node_id != killed[0]
    assert outcome.assumptions["measured"] == 2
    runs = read(journal_path(job, tmp_path), job.key).runs
    assert [(run.script, run.repeat) for run in runs] == POINTS


# Without a cluster.


def test_an_absent_ray_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"hgpu\[ray\]"):
        fan_out([job_of("L4")], "10.0.0.1:6379", tmp_path, silent)


def test_an_address_where_nothing_listens_is_refused_at_once(tmp_path: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(HgpuError, match=f"no Ray cluster answers at '{address}'"):
            fan_out([job_of("L4")], address, tmp_path, silent)


def test_a_journal_in_use_is_refused(tmp_path: Path) -> None:
    with (
        ray_home.only_here([job_of("L4")], tmp_path),
        pytest.raises(HgpuError, match="L4 is being measured already"),
    ):
        fan_out([job_of("L4")], "auto", tmp_path, silent)


def test_every_name_is_one_of_rays_and_of_the_catalog() -> None:
    from ray.util.accelerators import accelerators

    known = {value for name, value in vars(accelerators).items() if name.isupper()}
    assert {name for names in RAY_NAMES.values() for name in names} <= known
    assert set(RAY_NAMES) == {gpu.name for gpu in gpu_types().values() if gpu.vendor == "nvidia"}


def test_cpu_types_take_turns_and_so_do_the_degrees_of_a_type() -> None:
    jobs = [job_of("cpu-2core"), job_of("L4", tp=2), job_of("cpu-1core"), job_of("L4")]
    assert [[job.point.name for job in lane] for lane in ray_home.lanes(jobs)] == [
        ["cpu-1core", "cpu-2core"],
        [jobs[3].point.name, jobs[1].point.name],
    ]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / name).write_text(name)
    return folder


def test_a_shared_model_folder_is_used_as_it_is(model: Path, tmp_path: Path) -> None:
    job = replace(job_of("L4"), source=str(model))
    order = ray_home.order(job, tmp_path, measure)
    assert ray_node.bound(order, ["3"], tmp_path) == replace(job, gpus=(3,))


def test_a_folder_that_is_not_there_is_made_of_its_small_files(model: Path, tmp_path: Path) -> None:
    order = ray_home.order(replace(job_of("L4"), source=str(model)), tmp_path, measure)
    shutil.rmtree(model)
    (tmp_path / "node").mkdir()
    made = Path(ray_node.bound(order, ["0"], tmp_path / "node").source)
    assert made.parent == tmp_path / "node"
    assert {path.name: path.read_text() for path in made.iterdir()} == {
        name: name for name in ("config.json", "tokenizer.json")
    }


@pytest.mark.parametrize("there", [False, True])
def test_weights_that_are_not_there_are_an_error(model: Path, tmp_path: Path, there: bool) -> None:
    job = replace(job_of("L4"), source=str(model), load_format="auto")
    order = ray_home.order(job, tmp_path, measure)
    if there:
        (model / "config.json").write_text("another model")
    else:
        shutil.rmtree(model)
    with pytest.raises(InputError, match="weights aren't sent there"):
        ray_node.bound(order, ["0"], tmp_path)


def test_a_node_with_too_few_cores_is_an_error(tmp_path: Path) -> None:
    many = job_of(f"cpu-{len(os.sched_getaffinity(0)) + 1}core")
    with pytest.raises(InputError, match="doesn't fit the node"):
        ray_node.bound(ray_node.Order(many, Journal(), {}, measure), [], tmp_path)


def test_the_leavings_of_killed_processes_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mine, dead = tmp_path / f"hgpu-ray-{os.getpid()}-x", tmp_path / "hgpu-ray-99999999-x"
    mine.mkdir()
    dead.mkdir()
    with ray_node.scratch() as folder:
        assert set(tmp_path.iterdir()) == {mine, folder}
    assert list(tmp_path.iterdir()) == [mine]
