"""The entry point of the expert cache: vLLM calls it in each of its processes."""

import logging
import sys

from hgpu.runtime.vllm.expert_options import KEY


def register() -> None:
    """Make the cache known to vLLM. It is switched on by `hgpu_experts` in `--additional-config` only.

    A vLLM that lacks the hooks is left as it is; where the command line asks for the cache, that is an error.
    """
    from prometheus_client import REGISTRY

    from hgpu.runtime.vllm.expert_counters import ExpertCollector, counters_path
    from hgpu.runtime.vllm.features import missing_expert_features, require_expert_features

    try:
        missing = missing_expert_features()
    except ImportError as error:  # vLLM has moved its layers; who doesn't use the cache isn't stopped
        missing = [str(error)]
    if missing and any(KEY in word for word in sys.argv):
        require_expert_features()
    if missing:
        logging.getLogger("vllm.hgpu").warning(
            "hgpu's expert cache can't be used in this vLLM, which lacks %s", ", ".join(missing)
        )
        return
    from hgpu.runtime.vllm.expert_cache import register_classes

    register_classes()
    counters_path()  # so that the processes that this one starts have the same
    REGISTRY.register(ExpertCollector())
