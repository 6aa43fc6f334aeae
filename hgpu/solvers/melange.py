"""Reading the configuration of the published Mélange release as an allocation problem."""

import json
import math
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from hgpu.artifacts.manifest import Strict
from hgpu.core.errors import InputError
from hgpu.core.offer import Market, Offer
from hgpu.core.operating_point import OperatingPoint
from hgpu.solvers.problem import Column, Problem

Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class MelangeGpu(Strict):
    """USD per hour, and the highest rate (requests/s) by bucket: rows and columns as the distribution."""

    cost: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    tputs: list[list[Rate]]


class MelangeConfig(Strict):
    """`slice_factor` is read and not needed: shares are continuous here."""

    gpu_info: dict[str, MelangeGpu]
    workload_distribution: list[list[Rate]]
    total_request_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    slice_factor: Annotated[int, Field(ge=1)] = 1


def read_melange(path: Path) -> Problem:
    """Return the problem in a Mélange JSON file; a throughput of 0 forbids the bucket to the GPU.

    Raises InputError where the file is missing, malformed, or its tables don't match in shape.
    """
    try:
        config = MelangeConfig.model_validate(json.loads(path.read_bytes()))
    except OSError as error:
        raise InputError(
            f"can't read {path}", error.strerror or str(error), "give an existing JSON file"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the document"
        raise InputError(
            f"{path} is no Mélange configuration", f"{place}: {first['msg']}", "mend that field"
        ) from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON", str(error), "mend the file") from error
    _check_shapes(path, config)
    return _problem(config)


def _check_shapes(path: Path, config: MelangeConfig) -> None:
    shape = [len(row) for row in config.workload_distribution]
    for name, gpu in config.gpu_info.items():
        if [len(row) for row in gpu.tputs] != shape:
            raise InputError(
                f"{path}: tputs of {name} don't match workload_distribution",
                f"rows have {[len(row) for row in gpu.tputs]} columns, the distribution's {shape}",
                "give one throughput per bucket",
            )
    total = sum(map(sum, config.workload_distribution))
    if not math.isclose(total, 1.0, abs_tol=1e-3):
        raise InputError(
            f"{path}: workload_distribution sums to {total:g}",
            "the shares of all buckets make up 1",
            "mend the shares",
        )


def _problem(config: MelangeConfig) -> Problem:
    cells = [(i, j) for i, row in enumerate(config.workload_distribution) for j in range(len(row))]
    columns = tuple(
        Column(
            Offer("melange", name, "", Market.ON_DEMAND, name, 1, gpu.cost, "", "given in the configuration"),
            OperatingPoint(name),
            tuple(gpu.tputs[i][j] for i, j in cells),
        )
        for name, gpu in sorted(config.gpu_info.items())
    )
    return Problem(
        tuple(f"bucket [{i}][{j}]" for i, j in cells),
        tuple(config.total_request_rate * config.workload_distribution[i][j] for i, j in cells),
        columns,
    )
