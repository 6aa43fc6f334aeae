"""The commented spec files that `hgpu init` writes."""

from importlib.resources import files

from hgpu.core.errors import UnknownName

TEMPLATES = {
    "serve": "serve.yaml",
    "offload": "offload.yaml",
    "finetune": "finetune.yaml",
    "rl": "rl.yaml",
}


def template(kind: str) -> str:
    """Return the commented spec of a kind, or raise UnknownName."""
    if kind not in TEMPLATES:
        raise UnknownName("kind of spec", kind, TEMPLATES)
    return files(__package__).joinpath(TEMPLATES[kind]).read_text(encoding="utf-8")
