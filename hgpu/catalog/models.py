"""Finding a model: a folder, a `config.json`, or the id of a bundled one."""

import json
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from hgpu.catalog.model_config import parse_config
from hgpu.core.errors import InputError, UnknownName
from hgpu.core.gpu import DType
from hgpu.core.model import ModelSpec

# Other ids of a bundled config: the same shape, with the weight format where that differs.
ALIASES: dict[str, tuple[str, DType | None]] = {
    "meta-llama/Llama-2-7b-chat-hf": ("meta-llama/Llama-2-7b-hf", None),
    "meta-llama/Llama-2-70b-chat-hf": ("meta-llama/Llama-2-70b-hf", None),
    "meta-llama/Llama-3.1-8B-Instruct": ("meta-llama/Llama-3.1-8B", None),
    "meta-llama/Llama-3.1-70B-Instruct": ("meta-llama/Llama-3.1-70B", None),
    "meta-llama/Llama-3.3-70B-Instruct": ("meta-llama/Llama-3.1-70B", None),
    "meta-llama/Llama-3.2-1B-Instruct": ("meta-llama/Llama-3.2-1B", None),
    "meta-llama/Meta-Llama-3.1-8B": ("meta-llama/Llama-3.1-8B", None),
    "meta-llama/Meta-Llama-3.1-8B-Instruct": ("meta-llama/Llama-3.1-8B", None),
    "meta-llama/Meta-Llama-3.1-70B": ("meta-llama/Llama-3.1-70B", None),
    "meta-llama/Meta-Llama-3.1-70B-Instruct": ("meta-llama/Llama-3.1-70B", None),
    "mistralai/Mixtral-8x7B-Instruct-v0.1": ("mistralai/Mixtral-8x7B-v0.1", None),
    "mistralai/Mistral-Nemo-Instruct-2407": ("mistralai/Mistral-Nemo-Base-2407", None),
    "mistralai/Mistral-7B-Instruct-v0.3": ("mistralai/Mistral-7B-v0.3", None),
    "google/gemma-2-9b-it": ("google/gemma-2-9b", None),
    "neuralmagic/Meta-Llama-3.1-8B-Instruct-FP8": ("meta-llama/Llama-3.1-8B", DType.FP8),
    "neuralmagic/Meta-Llama-3.1-70B-Instruct-FP8": ("meta-llama/Llama-3.1-70B", DType.FP8),
    "RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8": ("meta-llama/Llama-3.1-8B", DType.FP8),
    "RedHatAI/Meta-Llama-3.1-70B-Instruct-FP8": ("meta-llama/Llama-3.1-70B", DType.FP8),
    "nvidia/Llama-3.1-8B-Instruct-FP8": ("meta-llama/Llama-3.1-8B", DType.FP8),
    "nvidia/Llama-3.1-70B-Instruct-FP8": ("meta-llama/Llama-3.1-70B", DType.FP8),
    "Qwen/Qwen3-8B-FP8": ("Qwen/Qwen3-8B", DType.FP8),
    "Qwen/Qwen3-32B-FP8": ("Qwen/Qwen3-32B", DType.FP8),
    "Qwen/Qwen3-30B-A3B-FP8": ("Qwen/Qwen3-30B-A3B", DType.FP8),
}


def load_model(name_or_path: str, dtype: DType | None = None) -> ModelSpec:
    """Load a model from a folder, a `config.json`, or the table of bundled models.

    Ids are matched without regard to case, and without the organisation too. `dtype` replaces
    the stored weight format. Raises `UnknownName`, or `InputError` for what can't be used.
    """
    config, name, stored = _found(name_or_path)
    return parse_config(config, name, dtype or stored)


def load_config(name_or_path: str) -> dict[str, Any]:
    """Return the `config.json` of a model that `load_model` finds, as it is."""
    return _found(name_or_path)[0]


def _found(name_or_path: str) -> tuple[dict[str, Any], str, DType | None]:
    """Return a model's config, its name, and the weight format that an alias stands for."""
    try:
        path = Path(name_or_path).expanduser()
        file = path if path.is_file() else path / "config.json"
        found = file.is_file()
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"can't look for a model at '{name_or_path}'", str(error), "check the path"
        ) from error
    if found:
        return _read_checkpoint(file), _name_of(name_or_path, path), None
    identity = _known_ids().get(name_or_path.lower())
    if identity is not None:
        base, stored = ALIASES.get(identity, (identity, None))
        return _read(bundled_models()[base]), identity, stored
    if path.exists() or path.suffix == ".json" or name_or_path.startswith((".", "/", "~")):
        why = "the folder holds no config.json" if path.is_dir() else "no such file or folder"
        fix = "give a model folder, a config.json or a Hugging Face id"
        raise InputError(f"no model at '{name_or_path}'", why, fix)
    raise UnknownName("model", name_or_path, [*bundled_models(), *ALIASES])


def bundled_models() -> dict[str, Traversable]:
    """Return the configs that come with hgpu, by Hugging Face id."""
    folder = files("hgpu.catalog") / "data" / "models"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".json"))
    return {file.removesuffix(".json").replace("--", "/", 1): folder / file for file in names}


def _known_ids() -> dict[str, str]:
    """Map lower-case ids, with and without their organisation, to their proper spelling."""
    identities = [*bundled_models(), *ALIASES]
    short = {identity.split("/", 1)[1].lower(): identity for identity in reversed(identities)}
    return short | {identity.lower(): identity for identity in identities}


def _name_of(name_or_path: str, path: Path) -> str:
    """Return what an engine would be given: the folder of a `config.json`, or the path itself."""
    return str(path.parent) if path.name == "config.json" else name_or_path


def _read_checkpoint(file: Path) -> dict[str, Any]:
    """Read a config with the `hf_quant_config.json` beside it, where ModelOpt says how it quantised."""
    config, beside = _read(file), file.with_name("hf_quant_config.json")
    if "quantization_config" in config or not beside.is_file():
        return config
    quantization = _read(beside).get("quantization")
    if not isinstance(quantization, dict):
        raise InputError(f"'{beside}' can't be used", "it has no object 'quantization'", "download it again")
    return {**config, "quantization_config": {"quant_method": "modelopt", **quantization}}


def _read(path: Path | Traversable) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        why = error.strerror or str(error)
        raise InputError(f"can't read '{path}'", why, "check the path and its permissions") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"'{path}' is not JSON", str(error), "download config.json again") from error
    if not isinstance(config, dict):
        why = f"it holds a {type(config).__name__}, not an object"
        raise InputError(f"'{path}' is not a model config", why, "give the config.json of a model")
    return config
