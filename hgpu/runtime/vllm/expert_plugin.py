"""The entry point of the expert cache: vLLM calls it in each of its processes."""

import logging
import sys
from functools import cache

from hgpu.core.errors import InputError
from hgpu.runtime.vllm.expert_options import KEY
from hgpu.runtime.vllm.features import missing_expert_features, require_expert_features


def register() -> None:
    """Make the cache known to vLLM. It is switched on by `hgpu_experts` in `--additional-config` only.

    A vLLM that lacks the hooks, or whose hooks another plugin has taken, is left as it is. Raises InputError
    there where the command line asks for the cache.
    """
    try:
        problem = _problem()
    except ImportError as error:  # vLLM has moved its layers; who doesn't use the cache isn't stopped
        problem = f"it lacks {error}"
    if not problem:
        _show_counters()
    elif any(KEY in word for word in sys.argv):
        require_expert_features()
        raise InputError("the expert cache can't be used in this vLLM", problem, f"leave out {KEY}")
    else:
        logging.getLogger("vllm.hgpu").warning("hgpu's expert cache can't be used in this vLLM: %s", problem)


def _problem() -> str:
    """Register the classes; return what stands in the way, or nothing."""
    if missing := missing_expert_features():
        return f"it lacks {', '.join(missing)}"
    from hgpu.runtime.vllm.expert_cache import register_classes

    taken = register_classes()
    return f"another plugin stands in for {', '.join(taken)}" if taken else ""


@cache
def _show_counters() -> None:
    from prometheus_client import REGISTRY

    from hgpu.runtime.vllm.expert_counters import ExpertCollector, counters_path

    counters_path()  # so that the processes that this one starts have the same
    REGISTRY.register(ExpertCollector())
