"""A plan in a cluster: applied by the server, pruned, waited for, destroyed; killed anywhere, it converges.

Against a stand-in for the API server; and with HGPU_KUBERNETES (a folder with etcd, kube-apiserver and
kube-controller-manager) against the real ones.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from kubernetes.client import RbacAuthorizationV1Api
from real_cluster import RealCluster
from small_cluster import GOLDEN, NAME, OPTIONS, driver, small_plan
from standin_cluster import Cluster as StandIn
from standin_cluster import write_kubeconfig

from hgpu.core.errors import EngineError, HgpuError, InputError, UnknownName
from hgpu.deploy.cluster.api import DEPLOYMENT, LEASE, Access, Cluster
from hgpu.deploy.cluster.driver import KubernetesDriver
from hgpu.deploy.cluster.lease import DURATION_S, held_by, leased
from hgpu.deploy.driver import DeployOptions
from hgpu.deploy.state import Phase

PROGRAMS = os.environ.get("HGPU_KUBERNETES")
NO_PDB = ("PodDisruptionBudget",)  # policy/v1 is younger than the real cluster that was had
ROOT = Path()


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    if not PROGRAMS:
        pytest.skip("needs HGPU_KUBERNETES")
    cluster = RealCluster(Path(PROGRAMS), tmp_path_factory.mktemp("real"))
    yield cluster
    cluster.close()


@pytest.fixture
def standin(tmp_path):
    cluster = StandIn(token="canary-of-the-cluster")
    cluster.kubeconfig = tmp_path / "kubeconfig"
    write_kubeconfig(cluster.kubeconfig, {"server": cluster.url}, "canary-of-the-cluster")
    yield cluster
    cluster.close()


@pytest.fixture(params=["stand-in", "real"])
def site(request):
    """A cluster, and the kinds that it lacks."""
    if request.param == "stand-in":
        return request.getfixturevalue("standin"), ()
    return request.getfixturevalue("real"), NO_PDB


@pytest.fixture
def deploy(site):
    cluster, without = site
    made = driver(cluster.kubeconfig, without)
    yield made
    if NAME in made.names(ROOT):
        made.destroy(ROOT, NAME)


def apply(made, plan=None, steps=None, options=OPTIONS):
    return made.apply(plan or small_plan(), ROOT, options, (steps if steps is not None else []).append)


def view(made):
    return Cluster(made.access, "default")


def test_a_plan_is_applied_waited_for_and_destroyed(deploy):
    steps = []
    deployed = apply(deploy, steps=steps)
    assert deployed.changed and deployed.completion is None
    assert deployed.state.front_url == "http://chat.default.svc:8000"
    assert [slot.slot for slot in deployed.state.slots] == ["h100-sxm-0", "l4-0", "l40s-0"]
    assert "chat-l4: 1 of 1 engines are healthy" in steps and steps[-1] == "ready"
    (status,) = deploy.status(ROOT)
    assert (status.phase, status.drift, status.plan_digest) == (Phase.READY, (), small_plan().short)
    assert sorted(slot.pool for slot in status.slots) == ["h100-sxm", "l4", "l40s"]
    assert all(slot.alive and slot.healthy for slot in status.slots)
    assert deploy.destroy(ROOT, NAME).killed >= 4
    assert deploy.status(ROOT) == [] and deploy.names(ROOT) == []
    assert view(deploy).get(LEASE, NAME) is None


def test_the_same_plan_again_changes_nothing(deploy):
    apply(deploy)
    before = {one["metadata"]["name"]: one for one in view(deploy).find(DEPLOYMENT, "")}
    assert not apply(deploy).changed
    assert {one["metadata"]["name"]: one for one in view(deploy).find(DEPLOYMENT, "")} == before


def test_what_an_earlier_plan_had_and_this_one_has_not_is_pruned(deploy):
    apply(deploy)
    steps = []
    assert apply(deploy, small_plan("l4", engines=2), steps).changed
    assert "Deployment/chat-l40s: of an earlier plan, deleted" in steps
    assert [one["metadata"]["name"] for one in view(deploy).find(DEPLOYMENT, "")] == ["chat-l4"]
    (status,) = deploy.status(ROOT)
    assert status.phase is Phase.READY and len(status.slots) == 2


def test_objects_of_others_are_left_alone(deploy):
    cluster = view(deploy)
    other = {"name": "other", "namespace": "default", "labels": {"app.kubernetes.io/instance": NAME}}
    spec = {"ports": [{"name": "http", "protocol": "TCP", "port": 80}], "selector": {"app": "other"}}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": other, "spec": spec}
    cluster.create(service)
    apply(deploy)
    deploy.destroy(ROOT, NAME)
    kinds = {one["metadata"]["name"] for one in cluster.find(_kind(service), "")}
    assert "other" in kinds
    cluster.delete(_kind(service), "other")


def test_fields_of_another_manager_are_refused_by_name_before_anything_changes(deploy, site):
    apply(deploy)
    body = view(deploy).get(DEPLOYMENT, "chat-l4")
    patch = {"spec": {"replicas": 3}}
    _edit(site[0], view(deploy), patch)
    with pytest.raises(HgpuError, match=r"kubectl-edit.*\.spec\.replicas.*--force-conflicts"):
        apply(deploy, small_plan(engines=2))
    assert view(deploy).get(DEPLOYMENT, "chat-h100-sxm")["spec"]["replicas"] == 1
    forced = driver(site[0].kubeconfig, site[1], force=True)
    assert apply(forced, small_plan(engines=2)).changed
    assert view(deploy).get(DEPLOYMENT, "chat-l4")["spec"]["replicas"] == 2
    assert body["metadata"]["uid"] == view(deploy).get(DEPLOYMENT, "chat-l4")["metadata"]["uid"]


def test_a_count_that_is_left_to_an_autoscaler_never_falls(deploy, site):
    apply(deploy, small_plan(engines=3))
    kinds = (
        (*site[1], "HorizontalPodAutoscaler") if site[1] else ()
    )  # of autoscaling/v2, as young as the other
    scaled = driver(site[0].kubeconfig, kinds, autoscale=True)
    counts = []

    def look(step):
        one = view(deploy).get(DEPLOYMENT, "chat-l4")
        counts.append(one["spec"].get("replicas", 1))

    scaled.apply(small_plan(engines=3), ROOT, OPTIONS, look)
    assert set(counts) == {3}
    assert scaled.status(ROOT)[0].phase is Phase.READY


def test_an_autoscalers_lower_bound_is_waited_for(standin):
    scaled = driver(standin.kubeconfig, autoscale=True)
    steps = []
    apply(scaled, small_plan(engines=3), steps)
    assert "chat-l4: 3 of 3 engines are healthy" in steps
    assert not apply(scaled, small_plan(engines=3)).changed
    with pytest.raises(HgpuError, match=r"kube-controller-manager.*\.spec\.replicas"):
        apply(driver(standin.kubeconfig), small_plan(engines=2))  # it may still scale: not behind its back
    assert scaled.destroy(ROOT, NAME).killed == 11


def test_a_second_hgpu_is_refused_while_the_first_works(deploy):
    refused = []

    def meanwhile(step):
        if step == "intended":
            for verb in (lambda: apply(deploy), lambda: deploy.destroy(ROOT, NAME)):
                with pytest.raises(HgpuError, match=r"another hgpu is working on it.*Lease of deployment"):
                    verb()
                refused.append(True)
            (status,) = deploy.status(ROOT)
            assert status.phase is Phase.STARTING

    deploy.apply(small_plan(), ROOT, OPTIONS, meanwhile)
    assert refused == [True, True]
    assert deploy.status(ROOT)[0].phase is Phase.READY


def test_what_is_missing_is_drift_and_comes_back(deploy):
    apply(deploy)
    cluster = view(deploy)
    cluster.delete(DEPLOYMENT, "chat-l4", "Background")
    (status,) = deploy.status(ROOT)
    assert status.phase is Phase.DEGRADED and "Deployment/chat-l4 is missing" in status.drift
    assert apply(deploy).changed
    assert deploy.status(ROOT)[0].phase is Phase.READY


def test_a_kill_at_every_step_converges_and_leaves_nothing(site):
    cluster, without = site
    script = Path(__file__).with_name("cluster_crash_driver.py")
    server, config = None, cluster.kubeconfig
    if isinstance(cluster, StandIn):  # children are forked: the server is better in a process of its own
        words = [sys.executable, str(script.with_name("standin_cluster.py"))]
        server = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        write_kubeconfig(config, {"server": server.stdout.readline().strip()}, "any")
    try:
        done = subprocess.run(
            [sys.executable, script, config, *without], capture_output=True, text=True, timeout=500
        )
    finally:
        if server:
            server.communicate(timeout=10)
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout)
    assert len(outcomes) >= 10
    assert [row["done"] for row in outcomes] == [False] * (len(outcomes) - 1) + [True]
    assert all(row["left"] == 0 for row in outcomes)
    for row in outcomes[::2]:  # applied again after the crash
        assert row["phase"] == "ready" and row["drift"] == [], row


def test_the_documented_role_is_enough(real):
    """The Role that docs/deploy.md lists, and nothing else: without it, all is refused."""
    made = driver(real.engineer, NO_PDB)
    with pytest.raises(HgpuError, match=r"forbidden.*docs/deploy\.md"):
        apply(made)
    text = (Path(__file__).parents[2] / "docs/deploy.md").read_text()
    role = yaml.safe_load(re.search(r"```yaml\n(.*?kind: Role\n.*?)```", text, re.DOTALL)[1])
    subject = {"kind": "User", "name": "engineer", "apiGroup": "rbac.authorization.k8s.io"}
    reference = {"kind": "Role", "name": "hgpu", "apiGroup": "rbac.authorization.k8s.io"}
    binding = {"metadata": {"name": "hgpu"}, "subjects": [subject], "roleRef": reference}
    with real.client() as client:
        api = RbacAuthorizationV1Api(client)
        api.create_namespaced_role("default", role)
        api.create_namespaced_role_binding("default", binding)
    assert apply(made).changed
    assert apply(made, small_plan("l4")).changed
    assert made.status(ROOT)[0].phase is Phase.READY
    assert made.destroy(ROOT, NAME).killed == 2 and made.names(ROOT) == []


def test_what_the_cluster_knows_is_kept_in_no_shared_file(standin, tmp_path, monkeypatch):
    shared = tmp_path / "shared"
    shared.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(shared))
    assert driver(standin.kubeconfig).status(ROOT) == []
    assert list(shared.iterdir()) == []


def test_engines_that_do_not_come_up_are_named_and_taken_down(standin):
    standin.sick = True
    made = driver(standin.kubeconfig)
    with pytest.raises(EngineError, match="chat-l4-pod-0: ImagePullBackOff"):
        apply(made, options=DeployOptions(timeout_s=1.0))
    assert made.names(ROOT) == [] and standin.names("pods") == []
    with pytest.raises(EngineError):
        apply(made, options=DeployOptions(timeout_s=1.0, keep_on_failure=True))
    (status,) = made.status(ROOT)
    assert status.phase is Phase.DEGRADED
    assert "chat-l4: 0 of 1 engines are healthy" in status.drift
    standin.act(standin.heal)
    assert not apply(made).changed  # all was applied; now it is healthy, too
    assert made.status(ROOT)[0].phase is Phase.READY


def test_a_failed_change_leaves_what_ran_before(standin):
    made = driver(standin.kubeconfig)
    apply(made)
    standin.sick = True
    with pytest.raises(EngineError):
        apply(made, small_plan(engines=2), options=DeployOptions(timeout_s=1.0))
    assert len(standin.names("deployments")) == 3


def test_engines_that_get_ready_later_are_waited_for(standin):
    standin.sick = True
    steps = []

    def heal(step):
        steps.append(step)
        if step.endswith("l40s: applied"):
            standin.loop.call_soon_threadsafe(standin.loop.call_later, 0.3, standin.heal)

    driver(standin.kubeconfig).apply(small_plan(), ROOT, OPTIONS, heal)
    assert "chat-l40s: 1 of 1 engines are healthy" in steps
    watches = [query for _, path, query in standin.requests if query.get("watch")]
    assert watches  # no polling


def test_a_lease_is_taken_over_from_the_dead_and_from_the_silent(standin):
    cluster = Cluster(Access(kubeconfig=standin.kubeconfig), "default")
    elsewhere = "other-host/1/2.0"
    with leased(cluster, NAME, {}) as lease:
        lease.object["spec"]["holderIdentity"] = elsewhere
        lease.object = cluster.replace(lease.object)
        now = datetime.now(UTC)
        assert held_by(lease.object, now) == elsewhere
        with pytest.raises(HgpuError, match=elsewhere), leased(cluster, NAME, {}):
            pass
        later = now + timedelta(seconds=DURATION_S + 1)
        assert held_by(lease.object, later) == ""
        with leased(cluster, NAME, {}, clock=lambda: later):
            pass
        with pytest.raises(HgpuError, match="took deployment 'chat' over"):
            lease.intend([])


def test_a_deploy_that_was_taken_over_takes_nothing_down(standin):
    made = driver(standin.kubeconfig)

    def robbed(step):
        if step.endswith("l4: applied"):
            standin.sick = True
            spec = {"holderIdentity": "other-host/1/2.0", "renewTime": "2020-01-01T00:00:00.000000Z"}
            standin.act(standin.edit, "leases", NAME, ("spec",), spec, "other")

    monkey = pytest.MonkeyPatch()
    monkey.setattr("hgpu.deploy.cluster.rollout.WATCH_S", 0.5)
    monkey.setattr("hgpu.deploy.cluster.lease.DURATION_S", 0)
    try:
        with pytest.raises(HgpuError, match="took deployment 'chat' over"):
            made.apply(small_plan(), ROOT, OPTIONS, robbed)
    finally:
        monkey.undo()
    assert len(standin.names("deployments")) == 3
    standin.act(standin.heal)


def test_a_cluster_without_a_needed_kind_is_refused_before_anything_changes(tmp_path):
    standin = StandIn(lacks=("PodDisruptionBudget", "InferencePool"))
    write_kubeconfig(tmp_path / "k", {"server": standin.url}, "x")
    try:
        steps = []
        with pytest.raises(InputError, match="no PodDisruptionBudget in policy/v1"):
            apply(driver(tmp_path / "k"), steps=steps)
        assert standin.objects == {}
        assert steps == ["the cluster has no InferencePool: left out, the Service spreads connections"]
    finally:
        standin.close()


def test_a_cluster_that_refuses_or_is_not_there_is_a_clear_error(standin, tmp_path):
    other = tmp_path / "other"
    write_kubeconfig(other, {"server": standin.url}, "canary-wrong")
    with pytest.raises(HgpuError, match="Unauthorized") as refused:
        driver(other).status(ROOT)
    write_kubeconfig(other, {"server": "http://127.0.0.1:9"}, "canary-wrong")
    with pytest.raises(HgpuError, match="whether the cluster answers") as absent:
        driver(other).status(ROOT)
    assert "canary" not in str(refused.value) + str(absent.value)
    with pytest.raises(InputError, match="no cluster to deploy to"):
        KubernetesDriver(Access(kubeconfig=tmp_path / "none")).status(ROOT)
    with pytest.raises(InputError, match="no cluster to deploy to"):
        KubernetesDriver(Access("nowhere", standin.kubeconfig)).status(ROOT)
    with pytest.raises(UnknownName, match="deployment 'chat'"):
        driver(standin.kubeconfig).destroy(ROOT, NAME)


def test_the_commands_deploy_show_and_destroy_without_a_secret(hgpu, standin, tmp_path):
    env = {"HF_TOKEN": "canary-of-hf", "VLLM_API_KEY": "canary-of-vllm", "HGPU_API_KEY": "canary-of-hgpu"}
    where = ("--target", "kubernetes", "--kubeconfig", str(standin.kubeconfig), "--json")
    done = hgpu("deploy", str(GOLDEN / "plan"), *where, "--name", NAME, env=env)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["target"] == "kubernetes" and said["changed"] and said["completion"] is None
    assert len(said["slots"]) == 14 and said["completion_tokens"] == 0
    status = hgpu("status", *where, env=env)
    assert json.loads(status.stdout)["deployments"][0]["phase"] == "ready"
    gone = hgpu("destroy", NAME, *where, env=env)
    assert json.loads(gone.stdout) == {"name": NAME, "killed": 8, "noun": "objects"}
    files = [path.read_text(errors="replace") for path in tmp_path.rglob("*.json")]
    sent = json.dumps([one for _, _, _, one in standin.history])
    texts = [done.stdout, done.stderr, status.stdout, gone.stdout, sent, *files]
    assert not any("canary" in text for text in texts)
    assert standin.objects == {}


def test_two_deploys_at_once_are_one_deploy_and_one_refusal(hgpu, standin, tmp_path):
    standin.sick = True  # the first waits for engines
    where = ("--target", "kubernetes", "--kubeconfig", str(standin.kubeconfig), "--name", NAME)
    words = [sys.executable, "-m", "hgpu", "deploy", str(GOLDEN / "plan"), *where]
    first = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        for line in first.stderr:
            if "chat-l40s: applied" in line:
                break
        second = hgpu("deploy", str(GOLDEN / "plan"), *where)
        assert second.returncode == 1 and f"/{first.pid}/" in second.stderr, second.stderr
        standin.act(standin.heal)
        out, _ = first.communicate(timeout=60)
        assert first.returncode == 0 and "chat is up" in out
    finally:
        first.kill()
        first.communicate()


@pytest.mark.parametrize(("words", "message"), [
    (("deploy", "PLAN", "--context", "x"), "--context: of a cluster"),
    (("status", "--kubeconfig", "x"), "--kubeconfig: of a cluster"),
    (("destroy", "chat", "--namespace", "x"), "--namespace: of a cluster"),
    (("deploy", "PLAN", "--dry-run", "--target", "aws", "--force-conflicts"), "conflicts: of a launch"),
    (("deploy", "PLAN", "--target", "kubernetes", "--out", "x"), "--out: of a dry run"),
    (("deploy", "PLAN", "--target", "kubernetes", "--kubeconfig", "none"), "no cluster to deploy to"),
])  # fmt: skip
def test_words_that_would_be_passed_over_are_refused(hgpu, words, message):
    done = hgpu(*(str(GOLDEN / "plan") if word == "PLAN" else word for word in words))
    assert done.returncode == 2 and message in done.stderr, done.stderr


def _kind(body):
    from hgpu.deploy.cluster.api import Kind

    return Kind(body["apiVersion"], body["kind"])


def _edit(site, cluster, patch):
    """Change a Deployment as `kubectl edit` does."""
    if isinstance(site, StandIn):
        site.act(site.edit, "deployments", "chat-l4", ("spec", "replicas"), 3, "kubectl-edit")
        return
    from kubernetes.client import AppsV1Api

    AppsV1Api(site.client()).patch_namespaced_deployment(
        "chat-l4", "default", patch, field_manager="kubectl-edit"
    )
