"""JSON Schemas of the artifacts, generated from the models (`make schemas`)."""

import json
import sys
from pathlib import Path

from hgpu.artifacts.kinds import KINDS
from hgpu.artifacts.manifest import Manifest


def schemas() -> dict[str, str]:
    """Return file names and their JSON text: one for the manifest, one a payload kind and version."""
    models = {"manifest": Manifest} | {
        f"{kind.name}.v{kind.version}": kind.payload for kind in KINDS.values()
    }
    return {
        f"{name}.schema.json": json.dumps(model.model_json_schema(), indent=1, sort_keys=True) + "\n"
        for name, model in models.items()
    }


def main(folder: Path) -> None:
    """Write the schemas into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in schemas().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
