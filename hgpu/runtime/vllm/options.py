"""What the phase scheduler is told: a JSON object of vLLM's `--additional-config`."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from math import isfinite
from typing import Any

from hgpu.core.errors import InputError
from hgpu.core.phases import PhaseOptions, Phases
from hgpu.core.step import StepModel

KEY = "hgpu_phases"
SCHEDULER = "hgpu.runtime.vllm.phase_scheduler.PhaseScheduler"
ASYNC_SCHEDULER = "hgpu.runtime.vllm.async_phase_scheduler.AsyncPhaseScheduler"


def phases_of(additional_config: object) -> Phases:
    """Read the options from vLLM's additional configuration; without the key, nothing is switched on.

    Raises InputError for what isn't known, and for a budget without a step model.
    """
    rows = additional_config.get(KEY, {}) if isinstance(additional_config, Mapping) else {}
    if not isinstance(rows, Mapping):
        raise InputError(f"{KEY} isn't an object", f"it is {rows!r}")
    known = dict(rows)
    step = known.pop("step", None)
    if isinstance(step, Mapping) and step.get("copies", step) is None:
        step = {name: value for name, value in step.items() if name != "copies"}
    options: PhaseOptions = _made(PhaseOptions, known, KEY)
    for name in ("ageing_tok_per_s", "tpot_s"):
        if getattr(options, name) == 0:
            raise InputError(f"{name} of {KEY} is 0", "it must be more than nothing")
    if step is None and options.tpot_s is not None:
        raise InputError(
            f"{KEY} has no step model",
            "a budget is chosen by predicted step times",
            "give `step`, or leave out `tpot_s`",
        )
    return Phases(options, None if step is None else _made(StepModel, step, f"{KEY}.step"))


def scheduler_args(phases: Phases, asynchronous: bool) -> list[str]:
    """Return the arguments of `vllm serve` that switch the phase scheduler on."""
    rows: dict[str, Any] = {key: value for key, value in asdict(phases.options).items() if value is not None}
    if phases.step is not None:
        rows["step"] = asdict(phases.step)
    scheduler = ASYNC_SCHEDULER if asynchronous else SCHEDULER
    return ["--scheduler-cls", scheduler, "--additional-config", json.dumps({KEY: rows})]


def _made(kind: type[Any], rows: object, where: str) -> Any:
    names = {field.name for field in fields(kind)} - {"copies"}  # mode `offload` has no phases
    if not isinstance(rows, Mapping) or not rows.keys() <= names:
        unknown = sorted(rows.keys() - names) if isinstance(rows, Mapping) else [repr(rows)]
        raise InputError(
            f"{where} has unknown options: {', '.join(unknown)}", f"known are {', '.join(sorted(names))}"
        )
    for name, value in rows.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not isfinite(value) or value < 0:
            raise InputError(f"{name} of {where} is {value!r}", "it must be a number, and not below 0")
    try:
        return kind(**rows)
    except TypeError as error:  # a step model without one of its coefficients
        raise InputError(f"{where} isn't whole", str(error)) from error
