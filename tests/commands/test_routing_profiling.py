"""`hgpu profile --mode offload` refuses what it can't record before an engine is started."""

from pathlib import Path

import pytest

from hgpu.commands.profile_request import RoutingRequest
from hgpu.commands.routing_profiling import record_routes, refuse_options
from hgpu.core.errors import InputError, UnknownName

SPEC = """kind: serve
model: {model}
workload: {{lengths: "fixed:128x64", rate_rps: 1}}
slo: {{tpot_ms: 100}}
gpus: [{gpu}]
engine: {{max_model_len: 2048}}
"""


@pytest.mark.parametrize(
    ("model", "gpu", "prompts", "says"),
    [
        ("Qwen/Qwen3-30B-A3B", "cpu-1core", None, "which prompts to record isn't said"),
        ("Qwen/Qwen3-8B", "cpu-1core", '{"prompt": "a"}', "has no experts"),
        ("Qwen/Qwen3-30B-A3B", "B200", '{"prompt": "a"}', "none of B200 is attached here"),
        ("Qwen/Qwen3-30B-A3B", "cpu-1core", '{"prompt": "a"}', "1 prompts don't fill a batch of 32"),
        ("Qwen/Qwen3-30B-A3B", "cpu-1core", "a", "line 1 of"),
    ],
)
def test_what_cant_be_recorded_is_refused(
    tmp_path: Path, model: str, gpu: str, prompts: str | None, says: str
) -> None:
    spec, file = tmp_path / "spec.yaml", tmp_path / "prompts.jsonl"
    spec.write_text(SPEC.format(model=model, gpu=gpu))
    file.write_text(prompts or "")
    request = RoutingRequest(tmp_path, file if prompts else None, (), 64, 1.0, "auto")
    with pytest.raises(InputError, match=says):
        record_routes(spec, None, request, json=True)


def test_options_that_recording_has_no_use_for_are_refused() -> None:
    refuse_options("offload", {"--url": None, "--on": ()})
    with pytest.raises(UnknownName, match="offload"):
        refuse_options("pd", {})
    with pytest.raises(InputError, match="--mode offload"):
        refuse_options(None, {})
    with pytest.raises(InputError, match="with --url and --on"):
        refuse_options("offload", {"--url": "http://x", "--ray": None, "--on": ["aws/x"]})
