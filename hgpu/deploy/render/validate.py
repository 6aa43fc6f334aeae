"""Are rendered objects what their target takes? Checked without it, and strictly: no unknown field passes.

Kubernetes' own kinds are checked by `kubernetes-validate`, custom resources by the schema that defines them,
SkyPilot's files by its schemas, EC2's parameters by botocore's model. What isn't there to check with is
said of each document, never passed over.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hgpu.core.errors import InputError
from hgpu.deploy.render.document import Body, Document
from hgpu.deploy.render.profiles import check_profile

KUBERNETES = "1.34"
BUILT_IN = ("v1", "apps/v1", "autoscaling/v2", "policy/v1", "batch/v1")
# Returns why the document couldn't be checked, empty where it was; raises InputError where it is wrong.
Check = Callable[[Document, Path | None], str]


def check_objects(document: Document, definitions: Path | None) -> str:
    """Check a Kubernetes object; `definitions` is a folder of custom resource definitions, as YAML."""
    body = _object(document)
    if find_spec("kubernetes_validate") is None:
        return "kubernetes-validate isn't installed: pip install 'hgpu[k8s]'"
    if body["apiVersion"] in BUILT_IN:
        _check_built_in(document.path, body)
        return ""
    # Definitions leave the metadata to Kubernetes: any kind that has nothing else will do to check it.
    _check_built_in(document.path, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": body["metadata"]})
    return _check_custom(document.path, body, definitions)


def check_aibrix(document: Document, definitions: Path | None) -> str:
    """Check an object, or a profile of the GPU optimizer."""
    if document.path.startswith("profiles/"):
        check_profile(document)
        return ""
    return check_objects(document, definitions)


def unchecked(_document: Document, _definitions: Path | None) -> str:
    """Check nothing: only the programs that are started read it."""
    return "what would be started; nothing takes it"


def check_sky(document: Document, _definitions: Path | None) -> str:
    """Check a task of SkyPilot, or a service."""
    if find_spec("sky") is None:
        return "SkyPilot isn't installed: pip install 'hgpu[sky]'"
    from sky.utils import schemas

    body = _object(document)
    parts = [(body, schemas.get_task_schema()), (body["resources"], schemas.get_resources_schema())]
    if "service" in body:
        parts.append((body["service"], schemas.get_service_schema()))
    for part, schema in parts:
        _check_schema(document.path, part, schema)
    return ""


def check_aws(document: Document, _definitions: Path | None) -> str:
    """Check the parameters of a launch template; a script is text."""
    if isinstance(document.body, str):
        return "a script"
    if find_spec("botocore") is None:
        return "botocore isn't installed: pip install 'hgpu[aws]'"
    from botocore.loaders import Loader
    from botocore.model import ServiceModel
    from botocore.validate import ParamValidator

    model = ServiceModel(Loader().load_service_model("ec2", "service-2"))
    shape = model.operation_model("CreateLaunchTemplate").input_shape
    report = ParamValidator().validate(dict(document.body), shape)
    if report.has_errors():
        raise _wrong(document.path, report.generate_report())
    return ""


def _check_built_in(path: str, body: Body) -> None:
    import kubernetes_validate

    try:
        kubernetes_validate.validate(dict(body), KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        raise _wrong(path, f"{_place(error.path)}: {error.message}") from error


def _check_custom(path: str, body: Body, definitions: Path | None) -> str:
    if definitions is None:
        return f"no definition of {body['kind']}: give a folder of them with --crds"
    group, _, version = body["apiVersion"].partition("/")
    for spec in _definitions(definitions):
        if (spec["group"], spec["names"]["kind"]) == (group, body["kind"]):
            for known in spec["versions"]:
                if known["name"] == version:
                    _check_schema(path, body, _strict(known["schema"]["openAPIV3Schema"]))
                    return ""
    return f"{definitions} has no definition of {body['kind']} in {body['apiVersion']}"


def _definitions(folder: Path) -> Iterator[Mapping[str, Any]]:
    files = sorted(path for path in folder.glob("*") if path.suffix in (".yaml", ".yml"))
    if not files:
        raise InputError(f"no custom resource definitions in {folder}", "it has no YAML files", "see --crds")
    for path in files:
        yield from _definitions_in(path.read_text(encoding="utf-8"))


@lru_cache(maxsize=64)
def _definitions_in(text: str) -> tuple[Mapping[str, Any], ...]:
    """The text is the key: some definitions are a megabyte, and take seconds to read."""
    import yaml

    documents = yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return tuple(d["spec"] for d in documents if d and d.get("kind") == "CustomResourceDefinition")


def _strict(schema: Any) -> Any:
    """Return a schema that forbids the fields that it doesn't name, except where it says to keep them."""
    if isinstance(schema, list):
        return [_strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _strict(value) for key, value in schema.items()}
    named = isinstance(made.get("properties"), dict) and "additionalProperties" not in made
    if named and not made.get("x-kubernetes-preserve-unknown-fields"):
        made["additionalProperties"] = False
    return made


def _check_schema(path: str, body: Any, schema: Mapping[str, Any]) -> None:
    import jsonschema

    errors = jsonschema.Draft7Validator(schema).iter_errors(dict(body))
    error = next(iter(sorted(errors, key=lambda error: list(map(str, error.path)))), None)
    if error is not None:
        raise _wrong(path, f"{_place(error.path)}: {error.message}")


def _object(document: Document) -> Body:
    assert not isinstance(document.body, str)  # its target renders no texts
    return document.body


def _place(path: Any) -> str:
    return ".".join(str(part) for part in path) or "the object"


def _wrong(path: str, why: str) -> InputError:
    return InputError(f"{path} isn't what its target takes", why, "report it: hgpu rendered it")
