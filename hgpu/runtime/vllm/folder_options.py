"""What a pair's engines are told of the connector between them, as vLLM's `--kv-transfer-config` takes it."""

import json
from enum import StrEnum
from pathlib import Path

FOLDER = "folder"
LIMIT = "limit_bytes"
MODULE = "hgpu.runtime.vllm.folder_connector"
LIMIT_BYTES = 2 * 2**30


class Side(StrEnum):
    """Which half of a pair an engine is."""

    PREFILL = "prefill"
    DECODE = "decode"


_ROLES = {Side.PREFILL: "kv_producer", Side.DECODE: "kv_consumer"}


def folder_args(side: Side, folder: Path, limit_bytes: int = LIMIT_BYTES) -> list[str]:
    """Return the arguments of `vllm serve` for one side of a pair that shares a folder.

    The folder holds at most `limit_bytes`, and a block in the writing.
    """
    transfer = {
        "kv_connector": "FolderConnector",
        "kv_connector_module_path": MODULE,
        "kv_role": _ROLES[side],
        "kv_load_failure_policy": "recompute",
        "kv_connector_extra_config": {FOLDER: str(folder), LIMIT: limit_bytes},
    }
    return ["--kv-transfer-config", json.dumps(transfer)]
