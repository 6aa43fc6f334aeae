"""Steps composed of measured kernels: plausible, monotone, and refused where nothing was measured."""

import importlib
import importlib.metadata
import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from hgpu.catalog.gpus import resolve_gpu
from hgpu.catalog.models import load_model
from hgpu.core.errors import Infeasible, InputError
from hgpu.core.gpu import DType
from hgpu.core.operating_point import EngineOptions, OperatingPoint
from hgpu.core.provenance import Provenance
from hgpu.core.step import StepBatch, StepModel, prefill_batch
from hgpu.latency.fit import fit
from hgpu.latency.silicon_source import silicon_artifact
from hgpu.profilers.silicon import Overheads, silicon
from hgpu.profilers.silicon_tables import SYSTEMS, Kernels, kernels

NAME = "meta-llama/Llama-3.1-8B"
MODEL = load_model(NAME)
H100 = resolve_gpu("H100-SXM")
POINT = OperatingPoint(H100.name)


def decode_batch(seqs: int, context: int = 1024) -> StepBatch:
    return StepBatch(decode_seqs=seqs, decode_context_tokens=seqs * context)


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("hgpu.profilers.silicon_tables.version", missing)
    with pytest.raises(InputError, match="aren't installed") as caught:
        silicon(MODEL, NAME, H100, POINT)
    assert "hgpu[silicon]" in caught.value.fix


def test_a_release_that_downloads_its_tables_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hgpu.profilers.silicon_tables.version", lambda _: "0.13.0")
    monkeypatch.setattr("hgpu.profilers.silicon_tables.import_module", lambda _: None)
    with pytest.raises(InputError, match=r"0\.13\.0 can't be used"):
        silicon(MODEL, NAME, H100, POINT)


def test_importing_the_profiler_imports_no_tables() -> None:
    source = Path(importlib.import_module("hgpu.profilers.silicon_tables").__file__ or "").read_text()
    assert "\nimport aiconfigurator" not in source
    assert "\nfrom aiconfigurator" not in source


def test_an_engine_slows_what_prefill_adds_and_nothing_of_decodes() -> None:
    kernels_s = StepModel(0.0, 0.010, 1e-9, 1e-8, 0.0, 100.0, 4.0).step_s
    prompt, decodes = prefill_batch(1024), decode_batch(64)
    both = replace(prompt, decode_seqs=64, decode_context_tokens=decodes.decode_context_tokens)
    engine = Overheads(step_overhead_s=0.002, prefill_slowdown=1.5, sequence_overhead_s=1e-5)
    assert engine.step_s(decodes, kernels_s) == pytest.approx(0.002 + 64e-5 + kernels_s(decodes))
    assert engine.step_s(prompt, kernels_s) == pytest.approx(0.002 + 1e-5 + 1.5 * kernels_s(prompt))
    expected_s = 0.002 + 65e-5 + kernels_s(decodes) + 1.5 * (kernels_s(both) - kernels_s(decodes))
    assert engine.step_s(both, kernels_s) == pytest.approx(expected_s)


def test_a_prefill_that_the_tables_time_as_a_gain_is_not_slowed() -> None:
    def kernels_s(batch: StepBatch) -> float:
        return 0.010 if batch.prefill_tokens else 0.011

    mixed = StepBatch(prefill_tokens=1, prefill_seqs=1, decode_seqs=8, decode_context_tokens=800)
    engine = Overheads(step_overhead_s=0.0, prefill_slowdown=2.0, sequence_overhead_s=0.0)
    assert engine.step_s(mixed, kernels_s) == 0.010


@pytest.fixture(scope="module")
def timed() -> Kernels:
    pytest.importorskip("aiconfigurator_core")
    return kernels(MODEL, NAME, H100, 1)


def test_a_step_takes_seconds_not_milliseconds(timed: Kernels) -> None:
    assert 0.004 < timed.step_s(decode_batch(1)) < 0.012
    assert 0.030 < timed.step_s(prefill_batch(2048)) < 0.120


def test_decoding_reads_at_least_the_weights(timed: Kernels) -> None:
    fastest_s = MODEL.step_weight_bytes(1) / H100.memory_bandwidth_bytes_per_s
    assert timed.step_s(decode_batch(1)) > fastest_s


@pytest.mark.parametrize(("name", "gpu", "dtype"), [(NAME, "H100-SXM", None), (NAME, "B200", DType.FP8)])
def test_few_tokens_are_never_slower_than_many(timed: Kernels, name: str, gpu: str, dtype: DType) -> None:
    mine = kernels(load_model(name, dtype), name, resolve_gpu(gpu), 4)
    times = [mine.step_s(decode_batch(seqs, 16)) for seqs in (1, 2, 4, 8, 16)]
    assert all(few <= 1.02 * many for few, many in itertools.pairwise(times))


@pytest.mark.parametrize("seqs", [1, 8, 64, 256])
def test_context_costs(timed: Kernels, seqs: int) -> None:
    times = [timed.step_s(decode_batch(seqs, context)) for context in (128, 2048, 16384)]
    assert times == sorted(times)


def test_a_later_chunk_pays_for_its_context(timed: Kernels) -> None:
    times = [timed.step_s(prefill_batch(2048, context)) for context in (0, 2048, 4096, 16384)]
    assert times == sorted(times)
    assert times[-1] > times[0]


def test_a_mixed_step_is_cheaper_than_its_halves_and_dearer_than_either(timed: Kernels) -> None:
    prompt, decodes = prefill_batch(1024), decode_batch(64)
    both = replace(prompt, decode_seqs=64, decode_context_tokens=decodes.decode_context_tokens)
    alone = (timed.step_s(prompt), timed.step_s(decodes))
    assert max(alone) < timed.step_s(both) < sum(alone)


def test_more_devices_and_faster_memory_are_faster(timed: Kernels) -> None:
    batch = decode_batch(64)
    assert kernels(MODEL, NAME, H100, 4).step_s(batch) < timed.step_s(batch)
    assert kernels(MODEL, NAME, resolve_gpu("H200"), 1).step_s(batch) < timed.step_s(batch)
    assert kernels(MODEL, NAME, resolve_gpu("A100-80GB"), 1).step_s(batch) > timed.step_s(batch)


def test_fp8_reads_half(timed: Kernels) -> None:
    small = load_model(NAME, DType.FP8)
    assert kernels(small, NAME, H100, 1).step_s(decode_batch(1)) < 0.8 * timed.step_s(decode_batch(1))


def test_an_8_bit_cache_doubles_the_capacity_and_its_kernels_read_faster(timed: Kernels) -> None:
    plain, small = (
        silicon(MODEL, NAME, H100, replace(POINT, engine=EngineOptions(kv_cache_dtype=dtype)))
        for dtype in (None, DType.FP8)
    )
    assert small.kv_capacity_tokens == pytest.approx(2 * plain.kv_capacity_tokens, abs=1)
    eight = kernels(MODEL.cached_in(DType.FP8), NAME, H100, 1)
    assert eight.step_s(decode_batch(64, 8192)) < 0.8 * timed.step_s(decode_batch(64, 8192))
    assert eight.step_s(decode_batch(1, 16)) == pytest.approx(timed.step_s(decode_batch(1, 16)), rel=0.05)


@pytest.mark.parametrize(("gpu", "dtype"), [("A100-80GB", DType.FP8), ("H100-SXM", DType.INT8)])
def test_a_cache_format_that_was_not_timed_is_refused(timed: Kernels, gpu: str, dtype: DType) -> None:
    point = OperatingPoint(gpu, engine=EngineOptions(kv_cache_dtype=dtype))
    with pytest.raises(InputError, match="no measured kernels for"):
        silicon(MODEL, NAME, resolve_gpu(gpu), point)


def test_a_profile_says_what_it_rests_on(timed: Kernels) -> None:
    result = silicon(MODEL, NAME, H100, POINT)
    assert (result.profiler, result.provenance) == ("silicon", Provenance.ESTIMATED)
    assert result.engine == timed.tables
    assert "h100_sxm/vllm 0.24" in result.engine
    assert 0.5 < result.assumptions["table_share"] <= 1.0
    assert {sample.batch.phase for sample in result.samples} == {"prefill", "decode", "mixed"}
    said = Overheads(**{name: result.assumptions[name] for name in Overheads.__slots__})
    assert said.prefill_slowdown > 1
    for sample in result.samples:
        assert sample.step_s == said.step_s(sample.batch, timed.step_s)


@pytest.mark.parametrize(("name", "tp"), [(NAME, 1), ("Qwen/Qwen3-32B", 2)])
def test_the_step_model_describes_it(timed: Kernels, name: str, tp: int) -> None:
    model = load_model(name)
    result = silicon(model, name, H100, replace(POINT, tp=tp))
    fitted = fit(result.samples, model, result.kv_capacity_tokens, result.provenance)
    assert fitted.latency.median_error < 0.03
    assert fitted.latency.p90_error < 0.08
    assert fitted.latency.provenance is Provenance.ESTIMATED


def test_a_model_from_a_folder_is_read_there(timed: Kernels, tmp_path: Path) -> None:
    from hgpu.catalog.models import bundled_models

    (tmp_path / "config.json").write_text(bundled_models()[NAME].read_text(encoding="utf-8"))
    model = load_model(str(tmp_path))
    assert kernels(model, str(tmp_path), H100, 1).step_s(decode_batch(1)) == timed.step_s(decode_batch(1))


@pytest.mark.parametrize("name", ["L4", "H100-PCIe", "A10G", "A100-40GB", "MI300X", "cpu-2core"])
def test_a_gpu_without_measured_kernels_is_refused(timed: Kernels, name: str) -> None:
    with pytest.raises(InputError, match="no measured kernels") as caught:
        silicon(MODEL, NAME, resolve_gpu(name), OperatingPoint(name))
    assert all(system in caught.value.why for system in SYSTEMS)


def test_a_degree_that_was_not_timed_is_refused(timed: Kernels) -> None:
    with pytest.raises(InputError, match="no measured kernels of 16"):
        silicon(MODEL, NAME, H100, replace(POINT, tp=16))


@pytest.mark.parametrize(
    ("name", "dtype", "gpu"),
    [
        (NAME, DType.INT4, "H100-SXM"),
        (NAME, DType.FP32, "H100-SXM"),
        (NAME, DType.FP8, "A100-80GB"),
        (NAME, DType.FP4, "H100-SXM"),
        ("google/gemma-2-9b", None, "H100-SXM"),
    ],
)
def test_a_format_or_shape_that_was_not_timed_is_refused(
    timed: Kernels, name: str, dtype: DType | None, gpu: str
) -> None:
    with pytest.raises(InputError, match="no measured kernels for") as caught:
        silicon(load_model(name, dtype), name, resolve_gpu(gpu), OperatingPoint(gpu))
    assert "estimate" in caught.value.fix


def test_a_model_without_a_config_is_refused(timed: Kernels) -> None:
    stranger = replace(MODEL, name="someone/else")
    with pytest.raises(InputError, match=r"no config\.json of someone/else"):
        silicon(stranger, "someone/else", H100, POINT)


def test_what_does_not_fit_is_infeasible(timed: Kernels) -> None:
    large = load_model("meta-llama/Llama-3.1-70B")
    with pytest.raises(Infeasible, match="doesn't fit"):
        silicon(large, "meta-llama/Llama-3.1-70B", H100, POINT)


def test_artifacts_are_saved_once(timed: Kernels, tmp_path: Path) -> None:
    first = silicon_artifact(tmp_path, MODEL, NAME, POINT)
    again = silicon_artifact(tmp_path, MODEL, NAME, POINT)
    assert first.path == again.path
    assert first.payload.latency.provenance is Provenance.ESTIMATED
    assert len(list((tmp_path / "profile").iterdir())) == 1
