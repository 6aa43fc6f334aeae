"""What the phase scheduler is told, there and back, and what it refuses."""

import json
from dataclasses import asdict
from typing import Any

import pytest

from hgpu.core.errors import InputError
from hgpu.core.phases import PhaseOptions, Phases
from hgpu.core.step import StepModel
from hgpu.runtime.vllm.options import ASYNC_SCHEDULER, KEY, SCHEDULER, phases_of, scheduler_args

STEP = StepModel(2e-3, 15e-3, 4e-9, 1e-7, 2e-5, knee_tokens=200.0, sharpness=4.0)


@pytest.mark.parametrize("additional", [None, {}, {"another": 1}])
def test_without_the_key_nothing_is_switched_on(additional: object) -> None:
    assert phases_of(additional) == Phases(PhaseOptions())


@pytest.mark.parametrize("phases", [Phases(PhaseOptions()), Phases(PhaseOptions(15.0, 0.05, 8), STEP)])
def test_what_the_arguments_say_is_read_back(phases: Phases) -> None:
    arguments = scheduler_args(phases, asynchronous=False)
    assert arguments[:3] == ["--scheduler-cls", SCHEDULER, "--additional-config"]
    assert phases_of(json.loads(arguments[3])) == phases
    assert scheduler_args(phases, asynchronous=True)[1] == ASYNC_SCHEDULER


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("fast", "isn't an object"),
        ({"ageing": 15}, "unknown options: ageing"),
        ({"ageing_tok_per_s": "15"}, "must be a number"),
        ({"ageing_tok_per_s": True}, "must be a number"),
        ({"ageing_tok_per_s": 0}, "more than nothing"),
        ({"tpot_s": float("nan"), "step": asdict(STEP)}, "must be a number"),
        ({"tpot_s": 0.05, "step": asdict(STEP) | {"pair_s": -1e-9}}, "not below 0"),
        ({"tpot_s": 0.05}, "no step model"),
        ({"step": {"linear_s": 1.0}}, "isn't whole"),
        ({"step": [1.0]}, "unknown options"),
        ({"least_tokens": None}, "must be a number"),
    ],
)
def test_what_is_not_known_is_refused(rows: Any, says: str) -> None:
    with pytest.raises(InputError) as caught:
        phases_of({KEY: rows})
    assert says in str(caught.value)
