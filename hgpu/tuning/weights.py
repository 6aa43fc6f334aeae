"""What a fine-tune leaves: a folder that PEFT (or transformers, of a full fine-tune) loads."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hgpu.artifacts.digest import digest_of, file_digest
from hgpu.artifacts.durable import sync_file, sync_folder
from hgpu.artifacts.manifest import FileRef
from hgpu.core.errors import HgpuError

CONFIG = "adapter_config.json"


def save_weights(model: Any, state: Mapping[str, Any], name: str, parent: Path) -> tuple[Path, list[FileRef]]:
    """Write what was trained, `state` of the model, into a folder under `parent`; return it with its files.

    The folder is there whole or not at all, and named after `name` and what is in it: the same weights
    come to the same folder. Raises HgpuError where the disk refuses.
    """
    staging = parent / f".tmp-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        staging.mkdir(parents=True)
        _write(model, state, staging)
        files = [
            FileRef(path=path.name, sha256=file_digest(path), bytes=path.stat().st_size)
            for path in sorted(staging.iterdir())
        ]
        folder = parent / f"{name}-{digest_of([[row.path, row.sha256] for row in files])[:12]}"
        if not folder.exists():
            for path in staging.iterdir():
                sync_file(path)
            sync_folder(staging)
            staging.rename(folder)
            sync_folder(parent)
    except OSError as error:
        raise HgpuError(
            f"can't write the weights under {parent}",
            error.strerror or str(error),
            "free space and run the same command: only the saving is done again",
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder, files


def _write(model: Any, state: Mapping[str, Any], folder: Path) -> None:
    from peft import PeftModel

    if isinstance(model, PeftModel):
        model.save_pretrained(folder, save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        config["target_modules"] = sorted(config["target_modules"])  # a set: in another order each time
        (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
    else:
        model.save_pretrained(folder, state_dict=dict(state))
