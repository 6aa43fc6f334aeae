"""Plans over swept values: a table, JSON, and a drawing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hgpu.core.errors import InputError
from hgpu.report.output import console, table, usd
from hgpu.report.plan import best_single, gpu_labels, plan_json
from hgpu.solvers.sweep import Cell


def cell_json(cell: Cell) -> dict[str, Any]:
    """Return a swept cell: its values, and its plan or the reason why there is none."""
    if cell.artifact is not None:
        return {"values": cell.values, **plan_json(cell.artifact)}
    error = cell.error
    assert error is not None
    return {
        "values": cell.values,
        "status": "infeasible",
        "error": error.what,
        "why": error.why,
        "fix": error.fix,
    }


def print_sweep(cells: Sequence[Cell]) -> None:
    """Print a row a cell: allocation, cost, the best single type and the saving."""
    rows = table(
        "",
        *(f">{_label(name)}" for name in cells[0].values),
        "allocation",
        ">USD/h",
        "best single type",
        ">USD/h",
        ">saving",
        "plan",
    )
    for cell in cells:
        values = [f"{value:g}" for value in cell.values.values()]
        if cell.artifact is None:
            rows.add_row(
                *values, f"infeasible: {cell.error.what if cell.error else ''}", "-", "", "-", "-", ""
            )
            continue
        payload = cell.artifact.payload
        best = best_single(payload.baselines)
        saving = payload.savings_vs_best_single_type
        rows.add_row(
            *values,
            " + ".join(
                f"{row.count}× {label} ({row.offer})"
                for row, label in zip(payload.allocation, gpu_labels(payload), strict=True)
            ),
            usd(payload.cost_usd_per_hour),
            f"{best.count}× {best.gpu}" if best else "none can",
            usd(best.cost_usd_per_hour or 0.0) if best else "-",
            "-" if saving is None else f"{saving:.0%}",
            cell.artifact.short,
        )
    out = console()
    planned = [cell.artifact for cell in cells if cell.artifact]
    if planned:
        first = planned[0].payload
        dates = [artifact.manifest.environment.price_date or "?" for artifact in planned]
        out.print(
            f"[bold]{first.service}[/bold]; latencies {first.provenance}; oldest price of {min(dates)}",
            soft_wrap=True,
        )
    out.print(rows)
    _print_singles(cells)


def _print_singles(cells: Sequence[Cell]) -> None:
    planned = [cell for cell in cells if cell.artifact]
    gpus = dict.fromkeys(
        row.gpu for cell in planned if cell.artifact for row in cell.artifact.payload.baselines
    )
    rows = table(
        "\nsingle-type fleets, USD/h (GPUs)",
        *(f">{_label(name)}" for name in cells[0].values),
        *(f">{g}" for g in gpus),
    )
    for cell in planned:
        assert cell.artifact is not None
        by_gpu = {row.gpu: row for row in cell.artifact.payload.baselines}
        costs = []
        for gpu in gpus:
            row = by_gpu.get(gpu)
            able = row is not None and row.cost_usd_per_hour is not None
            costs.append(f"{usd(row.cost_usd_per_hour or 0.0)} ({row.count})" if row and able else "can't")
        rows.add_row(*(f"{value:g}" for value in cell.values.values()), *costs)
    console().print(rows)


def _label(name: str) -> str:
    return {"workload.rate_rps": "rate/s", "slo.tpot_ms": "TPOT ms", "slo.ttft_ms": "TTFT ms"}.get(name, name)


def check_picture(path: Path | None, swept: bool) -> None:
    """Raise InputError for a file that `draw_sweep` couldn't write, before anything is solved."""
    if path is None:
        return
    from matplotlib.backend_bases import FigureCanvasBase

    if not swept:
        raise InputError(f"nothing to draw into {path}", "--png draws a sweep", "add --sweep rate=1:64")
    kinds = FigureCanvasBase.get_supported_filetypes()
    if path.suffix.removeprefix(".").lower() not in kinds:
        why = f"its name ends in none of {', '.join(sorted(kinds))}"
        raise InputError(f"can't draw into {path}", why, f"name it {path.with_suffix('.png')}")
    if not path.absolute().parent.is_dir():
        raise InputError(f"can't draw into {path}", f"there is no folder {path.parent}", "create it first")


def draw_sweep(cells: Sequence[Cell], path: Path) -> None:
    """Draw cost against the first swept value: a line for the plan and one for each single GPU type.

    Where a second value is swept, each of its values has a panel of its own, as in Mélange's figures.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(cells[0].values)
    first, rest = names[0] if names else "", names[1:]
    panels: dict[tuple[float, ...], list[Cell]] = {}
    for cell in cells:
        panels.setdefault(tuple(cell.values[name] for name in rest), []).append(cell)
    planned = [cell.plan.payload for cell in cells if cell.artifact]
    gpus = list(dict.fromkeys(row.gpu for payload in planned for row in payload.baselines))
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(5.5 * len(panels), 4.2), sharey=True, squeeze=False, layout="constrained"
    )
    for axis, (values, mine) in zip(axes[0], panels.items(), strict=True):
        _panel(axis, first, mine, gpus)
        axis.set_title(", ".join(f"{_label(n)}: {v:g}" for n, v in zip(rest, values, strict=True)))
    axes[0][0].set_ylabel("USD/h")
    axes[0][-1].legend(loc="upper left", fontsize="small")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _panel(axis: Any, name: str, cells: Sequence[Cell], gpus: Sequence[str]) -> None:
    """Draw one panel; a GPU type has the same colour in all of them, also where one can't serve."""
    planned = [cell for cell in cells if cell.artifact]
    for number, gpu in enumerate(gpus):
        points = [
            (cell.values.get(name, 0.0), row.cost_usd_per_hour)
            for cell in planned
            for row in cell.plan.payload.baselines
            if row.gpu == gpu and row.cost_usd_per_hour is not None
        ]
        xs, ys = zip(*points, strict=True) if points else ((), ())
        axis.plot(xs, ys, marker=".", linewidth=1, color=f"C{number}", label=f"only {gpu}")
    plan = [(cell.values.get(name, 0.0), cell.plan.payload.cost_usd_per_hour) for cell in planned]
    if plan:
        axis.plot(*zip(*plan, strict=True), marker="o", color="black", linewidth=2, label="plan")
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.set_xlabel(_label(name))
    axis.grid(alpha=0.3, which="both")
