"""The entry point of the group `vllm.general_plugins`: vLLM calls it in each of its processes."""

import logging

from hgpu.runtime.vllm.features import missing_features
from hgpu.runtime.vllm.options import SCHEDULER


def register() -> None:
    """Say whether this vLLM can take the phase scheduler. It changes nothing: `--scheduler-cls` does."""
    logger = logging.getLogger("vllm.hgpu")
    try:
        missing = missing_features()
    except ImportError as error:  # vLLM has moved its scheduler; who doesn't use ours isn't stopped
        missing = [str(error)]
    if missing:
        logger.warning("hgpu's phase scheduler can't steer this vLLM, which lacks %s", ", ".join(missing))
    else:
        logger.debug("hgpu's phase scheduler is there: --scheduler-cls %s", SCHEDULER)
