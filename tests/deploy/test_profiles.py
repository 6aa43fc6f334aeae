"""What AIBrix's optimizer is told of a pool: the rates of the plan's own models, in its own format."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from tests_types import Run

from hgpu.artifacts.store import load
from hgpu.commands.simulating import plan_latency
from hgpu.core.errors import InputError
from hgpu.core.slo import Objective, Slo, Tier
from hgpu.core.workload import Bucket
from hgpu.deploy.render.document import Document, RenderOptions
from hgpu.deploy.render.profiles import check_profile, profile_documents, strictest
from hgpu.latency.capacity import capacities
from hgpu.latency.confidence import slower

GOLDEN = Path(__file__).parent / "golden" / "render"
PLAN = load(GOLDEN / "plan")
LATENCY = {point: made.payload.latency for point, made in plan_latency(PLAN, GOLDEN).items()}
OPTIONS = RenderOptions("chat", PLAN.short, autoscale=True)


def profiles(plan: Any = PLAN.payload) -> dict[str, Any]:
    made = profile_documents(plan, OPTIONS, LATENCY, PLAN.manifest.created_at)
    return {
        str(document.body["gpu"]): document.body for document in made if not isinstance(document.body, str)
    }


def test_rates_are_those_that_the_plan_would_count_with() -> None:
    for row in PLAN.payload.allocation:
        body = profiles()[f"chat-{row.pool}"]
        outputs, inputs = body["indexes"]
        for i, output in enumerate(outputs):
            for j, tokens in enumerate(inputs):
                cell = Bucket(tokens, tokens, output, output, tokens, output, 0.0, tokens + output)
                careful = slower(LATENCY[row.point], row.safety_factor)
                (found,) = capacities(careful, row.point.engine, (cell,), PLAN.payload.slo)
                assert body["tputs"][i][j] == pytest.approx(found.rate_rps, rel=1e-3)
                assert 0 < body["ttft"][i][j] < body["e2e"][i][j] < math.inf
        assert body["cost"] == pytest.approx(row.usd_per_hour / row.engines, rel=1e-5)


def test_all_profiles_of_a_model_have_the_same_lengths() -> None:
    indexes = [body["indexes"] for body in profiles().values()]
    assert len(indexes) == 3 and indexes == [indexes[0]] * 3


def test_lengths_that_a_pool_cannot_serve_have_rate_zero_and_finite_latencies() -> None:
    tight = Slo(tpot=Objective(0.05))  # an L4 reads the weights in more than that
    body = profiles(PLAN.payload.model_copy(update={"slo": tight}))["chat-l4"]
    assert {rate for row in body["tputs"] for rate in row} == {0.0}
    assert all(math.isfinite(value) for row in body["e2e"] for value in row)


def test_of_tiers_the_strictest_objective_of_each_counts() -> None:
    fast = Slo(ttft=Objective(0.2, 90.0))
    slow = Slo(ttft=Objective(2.0, 99.0), tpot=Objective(0.1, 95.0))
    tiers = [Tier("fast", 0.5, fast), Tier("slow", 0.5, slow)]
    plan = PLAN.payload.model_copy(update={"slo": None, "tiers": tiers})
    assert strictest(plan) == Slo(ttft=Objective(0.2, 99.0), tpot=Objective(0.1, 95.0))


def test_a_plan_without_a_workload_has_none() -> None:
    with pytest.raises(InputError, match="no workload with objectives"):
        profiles(PLAN.payload.model_copy(update={"workload": None}))


@pytest.mark.parametrize(("field", "value"), [
    ("tputs", [[1.0]]),
    ("ttft", [[1.0, 2.0, 3.0], [1.0, 2.0, -3.0]]),
    ("indexes", [[35, 276], [551, 199, 1290]]),
    ("indexes", [[0, 276], [199, 551, 1290]]),
    ("cost", 0.0),
    ("created", "yesterday"),
])  # fmt: skip
def test_what_the_optimizer_cannot_read_is_seen(field: str, value: object) -> None:
    body = profiles()["chat-l4"]
    with pytest.raises(InputError, match="isn't what its target takes"):
        check_profile(Document("profiles/l4.json", body | {field: value}))


def test_a_dry_run_writes_them_and_says_how_they_get_into_redis(hgpu: Run, tmp_path: Path) -> None:
    words = ("deploy", str(GOLDEN / "plan"), "--results", str(GOLDEN), "--target", "aibrix", "--dry-run")
    done = hgpu(*words, "--autoscale", "--name", "chat", "--out", "out")
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "out/profiles/l40s.json").read_text())
    assert written == json.loads(json.dumps(profiles()["chat-l40s"]))
    assert "SET aibrix:profile_NAME_NAME-POOL < out/profiles/POOL.json" in done.stdout
    assert "find out -name '*.yaml' -exec kubectl apply" in done.stdout
    plain = hgpu(*words, "--out", "plain")
    assert plain.returncode == 0 and not (tmp_path / "plain/profiles").exists()
