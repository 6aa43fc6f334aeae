"""What `hgpu plan` calls for a spec of `kind: rl`: place the loop and keep the placement."""

from collections.abc import Sequence
from pathlib import Path

import typer

from hgpu.artifacts.digest import file_digest
from hgpu.artifacts.manifest import Environment, InputRef
from hgpu.artifacts.payloads.placement import PlacementPayload
from hgpu.artifacts.store import Artifact, Draft, save
from hgpu.catalog.offers import price_date
from hgpu.commands.misplaced import refuse_other_options
from hgpu.core.errors import InputError
from hgpu.report.output import print_json
from hgpu.report.placement import placement_json, print_placement
from hgpu.solvers.rl_plan import plan_loop
from hgpu.specs.load import load_any, load_kind
from hgpu.specs.rl import RlSpec

TAKEN = ("spec", "results", "json")  # of the options of `hgpu plan`


def is_loop(paths: Sequence[Path]) -> bool:
    """Tell whether the specs are of loops; raises InputError for loops among specs of other kinds."""
    loops = [isinstance(load_any(path), RlSpec) for path in paths]
    if any(loops) and len(paths) > 1:
        raise InputError(
            "a loop is placed alone",
            f"{len(paths)} specs are given, one of kind 'rl'",
            "plan them one at a time",
        )
    return any(loops)


def print_loops(context: typer.Context, paths: Sequence[Path], root: Path, json: bool) -> None:
    """Place the loop of a spec file, keep the answer and print it; refuse options that it would pass over."""
    refuse_other_options(context, TAKEN, "placements of loops")
    artifact = place_spec(paths[0], root)
    print_json(placement_json(artifact)) if json else print_placement(artifact)


def place_spec(path: Path, root: Path) -> Artifact[PlacementPayload]:
    """Place the loop of a spec file and keep the answer."""
    planned = plan_loop(load_kind(path, RlSpec))
    offers = planned.read.offers
    return save(
        root,
        Draft(
            "placement",
            f"{planned.payload.name}-{planned.payload.mode}",
            planned.payload,
            inputs=[InputRef(role="spec", kind="file", digest=file_digest(path)), *planned.read.files],
            environment=Environment(price_date=price_date(offers) if offers else None),
            timings=planned.timings,
        ),
    )
