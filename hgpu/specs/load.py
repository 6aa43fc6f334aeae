"""From a YAML file to a checked spec, with errors that name the line."""

import difflib
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from hgpu.core.errors import InputError, UnknownName
from hgpu.specs.finetune import FinetuneSpec
from hgpu.specs.rl import RlSpec
from hgpu.specs.serve import ServeSpec

AnySpec = ServeSpec | FinetuneSpec | RlSpec
KINDS: dict[str, type[AnySpec]] = {"serve": ServeSpec, "finetune": FinetuneSpec, "rl": RlSpec}
S = TypeVar("S", bound=AnySpec)
M = TypeVar("M", bound=BaseModel)


def load_spec(path: Path, overrides: dict[str, Any] | None = None) -> ServeSpec:
    """Return the spec of a service; as `load_any`, and InputError where it is of another kind."""
    return load_kind(path, ServeSpec, overrides)


def load_kind(path: Path, wanted: type[S], overrides: dict[str, Any] | None = None) -> S:
    """Return the spec in a file, as `load_any`; raises InputError where it isn't of the wanted kind."""
    spec = load_any(path, overrides)
    if not isinstance(spec, wanted):
        kind = next(name for name, model in KINDS.items() if model is wanted)
        raise InputError(
            f"{path} is a spec of kind '{spec.kind}'",
            f"only kind '{kind}' can be used here",
            f"write one with `hgpu init {kind}`",
        )
    return spec


def load_mapping(name: str, document: dict[str, Any], wanted: type[S], overrides: dict[str, Any]) -> S:
    """Return the spec that a mapping is, with `overrides` put in as by `load_any`; errors say `name`."""
    return _checked(name, None, document, wanted, overrides)


def load_any(path: Path, overrides: dict[str, Any] | None = None) -> AnySpec:
    """Return the spec in a YAML file, with dotted `overrides` (`slo.tpot_ms`) put in.

    Raises InputError naming file, line and field for whatever is missing or wrong.
    """
    node = _parse(path)
    document = _document(path, node)
    kind = str(document.get("kind"))
    if kind not in KINDS:
        raise UnknownName("kind of spec", kind, KINDS)
    return _checked(str(path), node, document, KINDS[kind], overrides or {})


def _checked(
    name: str, node: yaml.Node | None, document: dict[str, Any], model: type[M], overrides: dict[str, Any]
) -> M:
    for key, value in overrides.items():
        _put(document, key, value)
    try:
        return model.model_validate(document)
    except ValidationError as error:
        # A key that is there under another name is missing too: its name says more.
        found = error.errors()
        first = next((row for row in found if row["type"] == "extra_forbidden"), found[0])
        place = ".".join(str(part) for part in first["loc"])
        line = _line_of(node, first["loc"])
        where = f"{name}, line {line}" if line else name
        what = f"bad {place}" if place else "its fields don't fit together"
        kind = str(document["kind"])
        raise InputError(f"{where}: {what}", _why(first, kind), _fix(first, kind)) from error


def _why(error: Any, kind: str) -> str:
    known = _keys_beside(error["loc"], KINDS[kind])
    if error["type"] == "extra_forbidden" and known:
        return f"there is no such key; known: {', '.join(known)}"
    return str(error["msg"]).removeprefix("Value error, ")


def _fix(error: Any, kind: str) -> str:
    if error["type"] == "extra_forbidden":
        key = str(error["loc"][-1])
        if near := difflib.get_close_matches(key, _keys_beside(error["loc"], KINDS[kind])):
            return f"did you mean {', '.join(near)}?"
        return f"remove it, or see `hgpu init {kind}` for the keys there are"
    if error["type"] == "missing":
        return f"add it; see `hgpu init {kind}` for an example"
    return f"mend that; `hgpu init {kind}` writes a commented example"


def _keys_beside(location: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    """Return the keys that are allowed where `location` ends; none where that can't be told."""
    for part in location[:-1]:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part)
        inner = _models_in(field.annotation) if field else []
        if len(inner) != 1:
            return []
        model = inner[0]
    return sorted(model.model_fields)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _parse(path: Path) -> yaml.Node | None:
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"can't read spec {path}",
            getattr(error, "strerror", None) or str(error),
            "write one with `hgpu init serve`",
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        raise InputError(
            f"{where}: not YAML", getattr(error, "problem", None) or str(error), "mend that line"
        ) from error
    _refuse_twins(path, node)
    return node


def _refuse_twins(path: Path, node: yaml.Node | None) -> None:
    """Raise InputError for a key that a mapping has twice: all but the last would be passed over."""
    left, seen = [node], set[int]()  # anchors may lead back to where they are
    while left:
        node = left.pop()
        if not isinstance(node, yaml.CollectionNode) or id(node) in seen:
            continue
        seen.add(id(node))
        if not isinstance(node, yaml.MappingNode):
            left += node.value
            continue
        lines: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            word = str(key.value)
            if word in lines:
                raise InputError(
                    f"{path}, line {line}: {word} is given twice",
                    f"line {lines[word]} has it, too, and one of them would be passed over",
                    "keep one of them",
                )
            lines[word] = line
            left.append(value)


def _document(path: Path, node: yaml.Node | None) -> dict[str, Any]:
    loader = yaml.SafeLoader("")
    document = loader.construct_document(node) if node is not None else None
    if not isinstance(document, dict):
        raise InputError(f"{path} is no spec", "it holds no mapping", "write one with `hgpu init serve`")
    return {str(key): value for key, value in document.items()}


def _put(document: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for name in parents:
        document = document.setdefault(name, {})
        if not isinstance(document, dict):
            raise InputError(f"can't set {dotted}", f"{name} is no mapping in the spec", "check the name")
    document[last] = value


def _line_of(node: yaml.Node | None, location: tuple[int | str, ...]) -> int | None:
    """Return the 1-based line of the deepest part of `location` that the file has."""
    line = None
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line
