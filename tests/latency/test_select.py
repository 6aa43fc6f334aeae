"""A plan takes a fit only of exactly the operating point that it plans for."""

from dataclasses import replace
from pathlib import Path

import pytest

from hgpu.artifacts.store import Draft, save
from hgpu.catalog.models import load_model
from hgpu.core.gpu import DType
from hgpu.core.operating_point import EngineOptions, OperatingPoint
from hgpu.core.provenance import Provenance
from hgpu.latency.select import estimated, select_latency

MODEL = load_model("meta-llama/Llama-3.1-8B")


def test_a_fit_with_another_cache_format_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)  # there a run must name its fits
    plain, small = (OperatingPoint("L4", engine=EngineOptions(kv_cache_dtype=d)) for d in (None, DType.FP8))
    payload = estimated(tmp_path, MODEL, plain).payload
    measured = replace(payload.latency, provenance=Provenance.FITTED)
    fit = save(tmp_path, Draft("latency", "fit", payload.model_copy(update={"latency": measured})))
    chosen = select_latency(tmp_path, MODEL, (plain, small), (), only_estimates=False).chosen
    assert chosen[plain].digest == fit.digest
    assert chosen[small].payload.latency.provenance is Provenance.ESTIMATED
    assert chosen[small].payload.latency.kv_capacity_tokens > 1.9 * measured.kv_capacity_tokens
    assert chosen[small].payload.model == MODEL  # the point says it, not the model
