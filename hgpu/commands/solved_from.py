"""What a plan keeps of its question: the spec with its overrides, and the offers of the day."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from hgpu.artifacts.digest import canonical_json
from hgpu.artifacts.payloads.plan import PlanPayload
from hgpu.artifacts.store import Artifact
from hgpu.core.offer import Market, Offer
from hgpu.specs.serve import ServeSpec

SPEC_FILE = "spec.json"
OFFERS_FILE = "offers.json"


def solved_from(spec: ServeSpec, offers: Sequence[Offer]) -> dict[str, bytes]:
    """Return the files of a plan that say what it was solved from."""
    return {
        SPEC_FILE: canonical_json(spec.model_dump(mode="json")),
        OFFERS_FILE: canonical_json([asdict(offer) for offer in offers]),
    }


def read_solved_from(plan: Artifact[PlanPayload]) -> tuple[ServeSpec, list[Offer]] | None:
    """Return the spec and the offers of a plan; None where it is older than this, or of several services."""
    if not {SPEC_FILE, OFFERS_FILE} <= {row.path for row in plan.manifest.files}:
        return None
    spec = ServeSpec.model_validate_json((plan.path / SPEC_FILE).read_bytes())
    rows = json.loads((plan.path / OFFERS_FILE).read_bytes())
    return spec, [Offer(**{**row, "market": Market(row["market"])}) for row in rows]
