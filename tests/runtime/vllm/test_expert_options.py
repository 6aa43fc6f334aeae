"""What the expert cache is told, there and back, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest

from hgpu.core.errors import InputError
from hgpu.core.experts import ExpertCache, ExpertPolicy, Prefetch
from hgpu.runtime.vllm.expert_options import KEY, ExpertOptions, expert_args, expert_options_of

HINTS = Path("/models/hints.npz")
LRU = {"slots": 8, "policy": "lru"}


@pytest.mark.parametrize("additional", [None, {}, {"another": 1}])
def test_without_the_key_nothing_is_switched_on(additional: object) -> None:
    assert expert_options_of(additional) is None


@pytest.mark.parametrize("policy", list(ExpertPolicy))
@pytest.mark.parametrize("prefetch", list(Prefetch))
def test_what_the_arguments_say_is_read_back(policy: ExpertPolicy, prefetch: Prefetch) -> None:
    cache = ExpertCache(0.25, policy, prefetch, wide=False)
    arguments = expert_args(cache, HINTS)
    assert arguments[:2] == ["--enforce-eager", "--additional-config"]
    read = expert_options_of(json.loads(arguments[2]))
    assert read == ExpertOptions(None, 0.25, policy, prefetch, False, HINTS)
    assert read.slots_of(3, 32, 4) == cache.slots(32, 4) == 8


def test_each_layer_may_have_its_own_slots() -> None:
    divided = ExpertCache(0.2, ExpertPolicy.LRU, layer_slots=(4, 8))
    options = expert_options_of(json.loads(expert_args(divided)[2]))
    assert options is not None
    assert [options.slots_of(layer, 32, 4) for layer in (0, 1)] == [4, 8]
    with pytest.raises(InputError, match="those of 2 layers"):
        options.slots_of(2, 32, 4)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("lru", "isn't an object"),
        (LRU | {"slot": 8}, "unknown options: slot"),
        ({"policy": "lru"}, "says nothing, or twice"),
        (LRU | {"fraction": 0.5}, "says nothing, or twice"),
        ({"fraction": 0, "policy": "lru"}, "above 0"),
        ({"fraction": float("nan"), "policy": "lru"}, "above 0"),
        ({"fraction": "0.5", "policy": "lru"}, "fraction of hgpu_experts is '0.5'"),
        (LRU | {"slots": 0}, "slots of hgpu_experts is 0"),
        (LRU | {"slots": True}, "slots of hgpu_experts is True"),
        (LRU | {"slots": []}, "slots of hgpu_experts is []"),
        (LRU | {"slots": [8, "8"]}, "slots of hgpu_experts is [8, '8']"),
        (LRU | {"wide": 1}, "wide of hgpu_experts is 1"),
        (LRU | {"hints": 1}, "hints of hgpu_experts is 1"),
        (LRU | {"policy": "lrU"}, "did you mean lru"),
        (LRU | {"prefetch": "gate"}, "unknown Prefetch"),
        ({"slots": 8}, "has no hints for policy 'pinned_lfu'"),
        (LRU | {"prefetch": "token"}, "has no hints for policy 'lru' with prefetch 'token'"),
    ],
)
def test_what_is_not_known_is_refused(rows: Any, says: str) -> None:
    with pytest.raises(InputError) as caught:
        expert_options_of({KEY: rows})
    assert says in str(caught.value)
