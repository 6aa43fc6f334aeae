"""Rendered plans: golden files, validators that see every wrong field, and names that stay names."""

import base64
import copy
import json
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from tests_types import Run

from hgpu.artifacts.store import load
from hgpu.commands.simulating import plan_latency
from hgpu.core.errors import InputError
from hgpu.core.experts import ExpertCache
from hgpu.core.operating_point import Mode
from hgpu.deploy.render.document import Document, RenderOptions, default_name
from hgpu.deploy.render.profiles import profile_documents
from hgpu.deploy.render.targets import RENDERED
from hgpu.deploy.render.write import text_of

# SkyPilot's imports warn.
pytestmark = pytest.mark.filterwarnings("ignore" if find_spec("sky") else "error")
GOLDEN = Path(__file__).parent / "golden" / "render"
PLAN = load(GOLDEN / "plan")
# Definitions of custom resources aren't hgpu's; a clone by itself has none.
CRDS = Path(os.environ.get("HGPU_CRDS", Path(__file__).parents[3] / "shared" / "crds"))
CUSTOM = ("InferencePool", "LeaderWorkerSet", "PodAutoscaler")
# Maps whose keys are anybody's.
FREE = {"labels", "annotations", "matchLabels", "selector", "limits", "requests", "accelerators", "secrets"}


def options(target: str) -> RenderOptions:
    return RenderOptions("chat", PLAN.short, autoscale=target in ("kubernetes", "aibrix"))


def documents(target: str, plan: Any = PLAN.payload) -> list[Document]:
    made = RENDERED[target].render(plan, options(target))
    if target == "aibrix":
        latency = {point: one.payload.latency for point, one in plan_latency(PLAN, GOLDEN).items()}
        made += profile_documents(plan, options(target), latency, PLAN.manifest.created_at)
    return made


def objects(target: str) -> list[Document]:
    """The documents that can be checked here."""
    if target == "sky" and find_spec("sky") is None:
        pytest.skip("needs the extra `sky`")
    made = [document for document in documents(target) if not isinstance(document.body, str)]
    return [d for d in made if d.body.get("kind") not in CUSTOM or CRDS.is_dir()]


def passed_on(word: str, variables: dict[str, str]) -> str:
    """What a kubelet makes of a word of a container's command."""
    names = {"$$": "$"} | {f"$({name})": value for name, value in variables.items()}
    return re.sub(r"\$\$|\$\([^)]*\)", lambda found: names.get(found[0], found[0]), word)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every map in an object whose fields have a meaning, by its path."""
    if isinstance(value, dict):
        # A Service's selector is a map of labels, a Deployment's holds `matchLabels`.
        if not path or path[-1] not in FREE or "matchLabels" in value:
            yield path
        for key, part in value.items():
            yield from places(part, (*path, key))
    if isinstance(value, list):
        for number, part in enumerate(value):
            yield from places(part, (*path, number))


def containers(value: Any) -> Iterator[dict[str, Any]]:
    """Every container of an object, by the order of its fields."""
    if isinstance(value, dict):
        yield from value.get("containers", ())
        for part in value.values():
            yield from containers(part)


@pytest.mark.parametrize("target", RENDERED)
def test_a_plan_of_three_gpu_types_renders_as_the_golden_files(target: str) -> None:
    """After a change that is meant: HGPU_BLESS=1 pytest tests/deploy/test_render.py, and see at the diff."""
    made = {document.path: text_of(document) for document in documents(target)}
    folder = GOLDEN / target
    if os.environ.get("HGPU_BLESS"):
        for path, text in made.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
    kept = {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}
    assert made == kept
    assert {row.gpu for row in PLAN.payload.allocation} == {"L4", "L40S", "H100-SXM"}


@pytest.mark.parametrize("target", RENDERED)
def test_every_object_is_what_its_target_takes(target: str) -> None:
    for document in objects(target):
        assert RENDERED[target].check(document, CRDS if CRDS.is_dir() else None) == ""


@pytest.mark.parametrize("target", RENDERED)
def test_a_wrong_field_anywhere_is_seen(target: str) -> None:
    tried = 0
    for document in objects(target):
        for path in places(document.body):
            body = copy.deepcopy(document.body)
            where: Any = body
            for step in path:
                where = where[step]
            where["wrongField"] = "x"
            with pytest.raises(InputError, match="wrongField"):
                RENDERED[target].check(Document(document.path, body), CRDS)
            tried += 1
    assert tried >= 9


@pytest.mark.parametrize(("target", "path", "value"), [
    ("kubernetes", ("spec", "template", "spec", "containers", 0, "ports", 0, "containerPort"), "http"),
    ("kubernetes", ("spec", "selector"), "l4"),
    ("aibrix", ("spec", "template", "spec", "containers"), "vllm"),
    ("aws", ("LaunchTemplateData", "MetadataOptions", "HttpPutResponseHopLimit"), "one"),
])  # fmt: skip
def test_a_wrong_value_is_seen(target: str, path: tuple[Any, ...], value: object) -> None:
    name = "l4/launch-template.yaml" if target == "aws" else "l4/deployment.yaml"
    (document,) = (d for d in documents(target) if d.path == name)
    body = copy.deepcopy(document.body)
    where: Any = body
    for step in path[:-1]:
        where = where[step]
    where[path[-1]] = value
    with pytest.raises(InputError, match="isn't what its target takes"):
        RENDERED[target].check(Document(document.path, body), None)


def test_what_cannot_be_checked_is_said(tmp_path: Path) -> None:
    (pool,) = (d for d in documents("kubernetes") if d.path == "inferencepool.yaml")
    check = RENDERED["kubernetes"].check
    assert "give a folder of them with --crds" in check(pool, None)
    (tmp_path / "other.yaml").write_text(
        "kind: CustomResourceDefinition\nspec: {group: g, names: {kind: K}}\n"
    )
    assert "no definition of InferencePool" in check(pool, tmp_path)


def test_a_custom_resource_is_held_against_its_definition(tmp_path: Path) -> None:
    """Unknown fields are forbidden, also where the definition doesn't say so, except where it keeps them."""
    fields = {
        "endpointPickerRef": {
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": True,
            "properties": {},
        },
        "selector": {"type": "object", "properties": {"matchLabels": {"type": "object"}}},
        "targetPorts": {"type": "array", "items": {"type": "object", "properties": {"number": {}}}},
    }
    schema = {"properties": {"apiVersion": {}, "kind": {}, "metadata": {}, "spec": {"properties": fields}}}
    version = {"name": "v1", "schema": {"openAPIV3Schema": schema}}
    names = {"group": "inference.networking.k8s.io", "names": {"kind": "InferencePool"}}
    definition = {"kind": "CustomResourceDefinition", "spec": names | {"versions": [version]}}
    (tmp_path / "pool.yaml").write_text(yaml.safe_dump(definition))
    (pool,) = (d for d in documents("kubernetes") if d.path == "inferencepool.yaml")
    check = RENDERED["kubernetes"].check
    assert check(pool, tmp_path) == ""
    for path, seen in ((("spec", "targetPorts", 0), True), (("spec", "endpointPickerRef"), False)):
        body = copy.deepcopy(pool.body)
        where: Any = body
        for step in path:
            where = where[step]
        where["wrongField"] = 1
        if seen:
            with pytest.raises(InputError, match="wrongField"):
                check(Document(pool.path, body), tmp_path)
        else:
            assert check(Document(pool.path, body), tmp_path) == ""


@given(st.text(min_size=1, max_size=60).filter(lambda name: "\0" not in name))
@example("$(VLLM_API_KEY)")
@example("$$(VLLM_API_KEY)")
@example("--trust-remote-code")
def test_a_model_of_any_name_stays_one_word(name: str) -> None:
    if Path(name).is_absolute() or Path(name).is_dir():
        return
    plan = PLAN.payload.model_copy(update={"model_source": name})
    if name.startswith("-"):
        with pytest.raises(InputError, match="take it for an option"):
            documents("aws", plan)
        return
    for document in documents("aws", plan):
        if isinstance(document.body, str):
            words = shlex.split(document.body.replace("# NAME=value lines", ""))
            assert words[words.index("--model") + 1] == words[words.index("--served-model-name") + 1] == name
    for document in documents("sky", plan):
        words = shlex.split(document.body["run"])
        assert words[words.index("--model") + 1] == name
        assert yaml.safe_load(text_of(document)) == document.body
    for target, path in (("kubernetes", "l4/deployment.yaml"), ("lws", "l4/leaderworkerset.yaml")):
        (row,) = (d for d in documents(target, plan) if d.path == path)
        (container,) = list(containers(yaml.safe_load(text_of(row))))
        words = [passed_on(word, {"VLLM_API_KEY": "canary"}) for word in container["command"]]
        assert words[words.index("--model") + 1] == name


@given(st.lists(st.text(max_size=70), min_size=1, max_size=3))
@example(["/etc"])
@example([".."])
@example(["§"])
@example(["l4", "L4"])
def test_pools_of_any_name_stay_inside_the_folder_and_apart(names: list[str]) -> None:
    first = PLAN.payload.allocation[0]
    rows = [first.model_copy(update={"pool": name}) for name in names]
    plan = PLAN.payload.model_copy(update={"allocation": rows})
    for target in ("aws", "sky", "lws"):
        try:
            paths = [document.path for document in RENDERED[target].render(plan, options(target))]
        except InputError:
            continue
        assert len(set(paths)) == len(paths)
        for path in paths:
            assert re.fullmatch(r"([a-z0-9-]+/)?[a-z0-9-]+\.(yaml|sh)", path)


@pytest.mark.parametrize("target", RENDERED)
def test_nothing_runs_code_of_a_model_or_holds_its_token(target: str) -> None:
    for document in documents(target):
        text = text_of(document)
        assert "trust-remote-code" not in text and "--api-key" not in text


@given(st.text(max_size=50))
def test_only_names_that_need_no_quoting_are_taken(name: str) -> None:
    try:
        RenderOptions(name, "0")
    except InputError:
        return
    assert name == shlex.quote(name) == yaml.safe_load(f"x: '{name}'")["x"] and len(name) <= 40
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


@given(st.text(max_size=80))
def test_every_service_has_a_name_that_is_taken(service: str) -> None:
    name = default_name(PLAN.payload.model_copy(update={"service": service}))
    assert RenderOptions(name, "0").name == name


def test_user_data_is_in_the_template_as_it_stands_beside_it() -> None:
    made = {document.path: document.body for document in documents("aws")}
    data: Any = made["l4/launch-template.yaml"]
    assert base64.b64decode(data["LaunchTemplateData"]["UserData"]).decode() == made["l4/user-data.sh"]


def test_an_engine_of_several_machines_is_a_group_that_its_leader_serves_for() -> None:
    """No plan holds one yet: offers with fewer GPUs than an engine needs are passed over."""
    first = PLAN.payload.allocation[0]
    wide = {"gpus_per_machine": 8, "tp": 16, "engines": 3, "point": replace(first.point, tp=16)}
    row = first.model_copy(update=wide)
    plan = PLAN.payload.model_copy(update={"allocation": [row]})
    made = {document.path: document for document in documents("lws", plan)}
    sets: Any = made["l4/leaderworkerset.yaml"]
    assert RENDERED["lws"].check(sets, CRDS if CRDS.is_dir() else None) == ("" if CRDS.is_dir() else ANY)
    spec = sets.body["spec"]
    assert spec["replicas"] == 3 and spec["leaderWorkerTemplate"]["size"] == 2
    leader, worker = list(containers(spec["leaderWorkerTemplate"]))
    assert "--headless" not in leader["command"] and "--headless" in worker["command"]
    assert "readinessProbe" in leader and not {"ports", "readinessProbe", "livenessProbe"} & set(worker)
    assert leader["resources"]["limits"] == worker["resources"]["limits"] == {"nvidia.com/gpu": "8"}
    for number, one in enumerate((leader, worker)):
        injected = {"LWS_WORKER_INDEX": str(number), "LWS_LEADER_ADDRESS": "chat-l4-0.chat-l4"}
        words = [passed_on(word, injected) for word in one["command"]]
        assert words[words.index("--tensor-parallel-size") + 1] == "16"
        assert words[words.index("--nnodes") :][:6] == [
            "--nnodes", "2", "--node-rank", str(number), "--master-addr", "chat-l4-0.chat-l4",
        ]  # fmt: skip
    template = spec["leaderWorkerTemplate"]
    selected = made["service.yaml"].body["spec"]["selector"].items()
    assert selected <= template["leaderTemplate"]["metadata"]["labels"].items()
    assert not selected <= template["workerTemplate"]["metadata"]["labels"].items()


def test_ranks_that_nodes_cannot_share_evenly_are_refused() -> None:
    row = PLAN.payload.allocation[0].model_copy(update={"gpus_per_machine": 6, "tp": 16})
    with pytest.raises(InputError, match="spread evenly over 3 machines"):
        documents("lws", PLAN.payload.model_copy(update={"allocation": [row]}))


@pytest.mark.parametrize("target", RENDERED)
@pytest.mark.parametrize("mode", [Mode.PD, Mode.OFFLOAD])
def test_a_mode_that_nothing_starts_is_refused(target: str, mode: Mode) -> None:
    first = PLAN.payload.allocation[0]
    experts = ExpertCache(0.25) if mode is Mode.OFFLOAD else None
    point = replace(first.point, mode=mode, experts=experts)
    row = first.model_copy(update={"mode": str(mode), "point": point})
    with pytest.raises(InputError, match=f"runs in mode '{mode}'"):
        documents(target, PLAN.payload.model_copy(update={"allocation": [row]}))


def test_engines_that_share_a_machine_get_devices_and_ports_of_their_own() -> None:
    row = PLAN.payload.allocation[0].model_copy(
        update={
            "offer": "aws/p5.48xlarge",
            "gpus_per_machine": 8,
            "tp": 4,
            "point": PLAN.payload.allocation[0].point.__class__("H100-SXM", 4),
        }
    )
    plan = PLAN.payload.model_copy(update={"allocation": [row]})
    script = next(d.body for d in documents("aws", plan) if isinstance(d.body, str))
    assert "--gpus '\"device=0,1,2,3\"'" in script and "--gpus '\"device=4,5,6,7\"'" in script
    assert "--publish 8000:8000" in script and "--publish 8001:8000" in script
    with pytest.raises(InputError, match="2 engines on a machine"):
        documents("sky", plan)


@pytest.mark.parametrize(("change", "target", "message"), [
    ({"gpu": "cpu-2core"}, "kubernetes", "runs on cpu-2core"),
    ({"offer": "gcp/g2-standard-4"}, "aws", "is of gcp/g2-standard-4"),
])  # fmt: skip
def test_what_a_target_lacks_is_refused(change: dict[str, str], target: str, message: str) -> None:
    row = PLAN.payload.allocation[0].model_copy(update=change)
    with pytest.raises(InputError, match=message):
        documents(target, PLAN.payload.model_copy(update={"allocation": [row]}))


def test_a_model_folder_of_this_machine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="folder of this machine"):
        documents("kubernetes", PLAN.payload.model_copy(update={"model_source": str(tmp_path)}))


def test_a_dry_run_writes_checked_files_without_a_secret(hgpu: Run, tmp_path: Path) -> None:
    secrets = {"HF_TOKEN": "canary-of-hf", "VLLM_API_KEY": "canary-of-vllm", "HGPU_API_KEY": "canary-of-hgpu"}
    for target in RENDERED:
        words = ("deploy", str(GOLDEN / "plan"), "--target", target, "--dry-run", "--out", target, "--json")
        done = hgpu(*words, env=secrets)
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert said["target"] == target and len(said["files"]) >= 3
        texts = [(tmp_path / row["path"]).read_text() for row in said["files"]]
        assert not any("canary" in text for text in (*texts, done.stdout, done.stderr))
    again = hgpu(*words)
    assert again.returncode == 2 and "isn't an empty folder" in again.stderr


@pytest.mark.parametrize(("words", "message"), [
    (("--target", "aibrix"), "doesn't launch on 'aibrix' itself yet"),
    (("--target", "kubernets", "--dry-run"), "kubernetes"),
    (("--target", "aws", "--dry-run", "--name", "x; reboot"), "can't be the name of a deployment"),
    (("--target", "aws", "--dry-run", "--image", "x; reboot"), "no image has the name"),
    (("--target", "kubernetes", "--dry-run", "--crds", "."), "no custom resource definitions"),
    (("--target", "aws", "--dry-run", "--out", "/proc/nowhere"), "can't write to /proc/nowhere"),
    (("--target", "aws", "--dry-run", "--autoscale"), "no autoscaler is rendered for `aws`"),
    (("--target", "sky", "--dry-run", "--autoscale"), "no autoscaler is rendered for `sky`"),
    (("--namespace", "chat", "--out", "x"), "--namespace, --out: of a dry run"),
    (("--target", "aws", "--dry-run", "--timeout", "9", "--keep-on-failure"),
     "--timeout, --keep-on-failure: of a launch"),
    (("--target", "sky", "--dry-run", "--load-format", "dummy"), "--load-format: of a launch"),
    (("--dry-run", "--timeout", "9"), "--timeout: of a launch"),
    (("--dry-run", "--namespace", "x"), "--namespace: of other targets' files"),
    (("--dry-run", "--crds", "x"), "--crds: of other targets' files"),
    (("--target", "aibrix", "--dry-run", "--autoscale"), "no latency model of pool"),
])  # fmt: skip
def test_bad_words_end_in_a_clear_error(hgpu: Run, words: tuple[str, ...], message: str) -> None:
    done = hgpu("deploy", str(GOLDEN / "plan"), *words)
    assert done.returncode == 2 and message in done.stderr, done.stderr
