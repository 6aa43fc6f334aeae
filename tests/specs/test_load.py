from pathlib import Path

import pytest

from hgpu.core.errors import HgpuError, InputError
from hgpu.core.gpu import DType
from hgpu.specs.load import KINDS, load_any, load_spec
from hgpu.specs.service import service_of
from hgpu.specs.templates import TEMPLATES, template

SPEC = """kind: serve
model: Llama-3.1-8B
workload: {lengths: chat, rate_rps: 4}
slo: {tpot_ms: 120}
gpus: [L4, h100_sxm]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "spec.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("kind", TEMPLATES)
def test_every_template_is_a_spec_of_its_kind(tmp_path: Path, kind: str) -> None:
    spec = load_any(write(tmp_path, template(kind)))
    assert isinstance(spec, KINDS["serve" if kind == "offload" else kind])


def test_the_template_of_serve_makes_a_service(tmp_path: Path) -> None:
    service = service_of(load_spec(write(tmp_path, template("serve"))))
    assert service.offers and len(service.points) == 4


def test_names_are_resolved_and_units_become_seconds(tmp_path: Path) -> None:
    service = service_of(load_spec(write(tmp_path, SPEC)))
    assert [point.gpu for point in service.points] == ["L4", "H100-SXM"]
    (tier,) = service.tiers
    assert tier.slo.tpot is not None and tier.slo.tpot.limit_s == 0.12
    assert service.workload.rate_rps == 4


@pytest.mark.parametrize(
    ("change", "place", "fix"),
    [
        (("tpot_ms", "tpt_ms"), "slo.tpt_ms", "tpot_ms"),
        (("gpus:", "gpu:"), "bad gpu", "gpus"),
        (("rate_rps", "rate_rqs"), "workload.rate_rqs", "rate_rps"),
    ],
)
def test_a_key_that_is_spelled_wrong_is_told_the_nearest(
    tmp_path: Path, change: tuple[str, str], place: str, fix: str
) -> None:
    """Also where the key that was meant is needed, and so is missing."""
    with pytest.raises(InputError, match=place) as caught:
        load_spec(write(tmp_path, SPEC.replace(*change)))
    assert caught.value.why.startswith("there is no such key; known: ")
    assert caught.value.fix.startswith(f"did you mean {fix}")


def test_prices_that_are_too_old_name_the_age_that_would_do(tmp_path: Path) -> None:
    text = SPEC + "offers: {max_price_age_days: 1}\n"
    with pytest.raises(InputError, match="days old") as caught:
        service_of(load_spec(write(tmp_path, text)))
    days = caught.value.fix.split("allow ")[1].split()[0]
    assert service_of(load_spec(write(tmp_path, text.replace("days: 1", f"days: {days}"))))


def test_an_anchor_that_leads_back_to_itself_is_no_endless_walk(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="bad workload"):
        load_spec(write(tmp_path, "kind: serve\nmodel: x\ngpus: &a [*a]\n"))


def test_overrides_reach_nested_keys(tmp_path: Path) -> None:
    spec = load_spec(write(tmp_path, SPEC), {"slo.tpot_ms": 40, "workload.rate_rps": 9.0, "min_engines": 2})
    assert (spec.slo.tpot_ms, spec.workload.rate_rps, spec.min_engines) == (40, 9.0, 2)


def test_a_trace_becomes_an_input_by_its_hash(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    rows = "".join(f"2024-01-01 00:00:{s:02d}.0000000,100,20\n" for s in range(10))
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + rows)
    text = SPEC.replace("{lengths: chat, rate_rps: 4}", f"{{trace: {trace}}}")
    service = service_of(load_spec(write(tmp_path, text)))
    assert service.workload.rate_rps == pytest.approx(1.0)
    assert [row.kind for row in service.files] == ["file"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("kind: serve", "kind: server"), ["kind of spec", "did you mean serve"]),
        (("kind: serve", "# nothing"), ["kind of spec"]),
        (("tpot_ms: 120", "tpot_ms: -1"), ["line 4", "slo.tpot_ms", "greater than 0"]),
        (("tpot_ms: 120", "tpot: 120"), ["line 4", "slo.tpot"]),
        (("slo: {tpot_ms: 120}", "slo: {}"), ["line 4", "at least one of"]),
        (("rate_rps: 4", "rate_rps: 0"), ["line 3", "workload.rate_rps"]),
        (("rate_rps: 4", "rate_rps: .nan"), ["line 3", "finite"]),
        ((", rate_rps: 4", ""), ["line 3", "lengths need a rate_rps"]),
        (("lengths: chat", "lengths: chat, trace: x.csv"), ["either lengths"]),
        (("lengths: chat", "lengths: chta"), ["unknown length distribution", "did you mean"]),
        (("gpus: [L4, h100_sxm]", "gpus: []"), ["line 5", "gpus"]),
        (("h100_sxm", "h100_sxn"), ["unknown GPU type", "H100-SXM"]),
        (("Llama-3.1-8B", "Llama-3.1-9B"), ["unknown model", "Llama-3.1-8B"]),
        (("kind: serve", "kind: serve\nextra: 1"), ["line 2", "extra"]),
        (("kind: serve", "kind: serve\nengine: {max_model_len: 999999}"), ["max_model_len", "131072"]),
        (("kind: serve", "kind: serve\ntensor_parallel: [3]"), ["line 2", "tensor_parallel"]),
        (("kind: serve", "kind: serve\nworkload: ["), ["not YAML"]),
        (("kind: serve", "- 1"), ["not YAML"]),
    ],
)
def test_a_bad_spec_names_the_line_the_field_and_a_remedy(
    tmp_path: Path, change: tuple[str, str], words: list[str]
) -> None:
    with pytest.raises(HgpuError) as caught:
        service_of(load_spec(write(tmp_path, SPEC.replace(*change))))
    assert caught.value.exit_code == 2
    for word in words:
        assert word in str(caught.value)
    assert caught.value.why and caught.value.fix


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"just text", b"[1, 2]"])
def test_what_is_no_spec_is_a_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "spec.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError):
        load_spec(path)
    with pytest.raises(InputError, match="can't read spec"):
        load_spec(tmp_path / "none.yaml")


def test_requests_outside_the_buckets_are_refused_unless_allowed(tmp_path: Path) -> None:
    edges = "input_edges: [1, 500], output_edges: [1, 8000]"
    text = SPEC.replace("lengths: chat", f"lengths: chat, {edges}")
    with pytest.raises(InputError, match="fit no bucket"):
        service_of(load_spec(write(tmp_path, text)))
    allowed = text.replace("lengths: chat", "lengths: chat, allow_outside: true")
    assert service_of(load_spec(write(tmp_path, allowed))).workload.outside_share > 0.2


def test_the_cache_format_reaches_every_point(tmp_path: Path) -> None:
    asked = SPEC + "engine: {kv_cache_dtype: fp8}\n"
    points = service_of(load_spec(write(tmp_path, asked))).points
    assert [point.engine.kv_cache_dtype for point in points] == [DType.FP8, DType.FP8]
    assert service_of(load_spec(write(tmp_path, SPEC))).points[0].engine.kv_cache_dtype is None


@pytest.mark.parametrize("dtype", ["int4", "fp9", "[fp8]"])
def test_a_cache_format_that_no_engine_keeps_is_refused_by_line(tmp_path: Path, dtype: str) -> None:
    with pytest.raises(InputError, match=r"line 6: bad engine.kv_cache_dtype") as caught:
        load_spec(write(tmp_path, SPEC + f"engine: {{kv_cache_dtype: {dtype}}}\n"))
    assert "bf16, fp16, fp8" in caught.value.why
