import sys
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from engine_server import Engine, serving

from hgpu.catalog.models import load_model
from hgpu.core.errors import EngineError, InputError, InvalidMeasurement
from hgpu.core.operating_point import EngineOptions, OperatingPoint
from hgpu.core.provenance import Provenance
from hgpu.profilers.endpoint import EndpointJob, profile_endpoint
from hgpu.profilers.journal import read

POINT = OperatingPoint(
    "L4", engine=EngineOptions(max_num_batched_tokens=256, max_num_seqs=8, max_model_len=1024)
)


def job(url: str, **changes: object) -> EndpointJob:
    made = EndpointJob(url, load_model("Llama-3.1-8B"), POINT, repeats=2, decode_steps=4, setup_tokens=128)
    return replace(made, **changes)


def silent(done: int, total: int, what: str) -> None:
    assert 0 < done <= total and what


def test_step_times_are_recovered_from_outside(tmp_path: Path) -> None:
    engine = Engine()
    with serving(engine) as url:
        result = profile_endpoint(job(url), tmp_path, silent)
    assert (result.profiler, result.provenance, result.kv_capacity_tokens) == (
        "endpoint",
        Provenance.MEASURED,
        16_000,
    )
    assert 0 < result.assumptions["request_s"] < 5 * engine.request_s
    ratios: dict[str, list[float]] = {"prefill": [], "decode": [], "mixed": []}
    for sample in result.samples:
        batch = sample.batch
        if not batch.prefill_context_tokens:  # this engine knows no chunks
            took_s = median(engine.took_s[int(batch.prefill_tokens), int(batch.decode_seqs)])
            ratios[batch.phase].append(sample.step_s / took_s)
    for phase, row in ratios.items():
        assert median(row) == pytest.approx(1.0, abs=0.4), phase


def test_what_is_in_the_journal_is_not_played_again(tmp_path: Path) -> None:
    engine = Engine()
    with serving(engine) as url:
        mine = job(url)
        first = profile_endpoint(mine, tmp_path, silent)
        served = engine.served
        path = mine.journal(tmp_path)
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:-2]) + lines[-2][:20])  # a torn line and a lost one
        again = profile_endpoint(mine, tmp_path, silent)
        assert engine.served - served < served / 2
    assert len(read(path, mine.key).runs) == len(lines) - 1
    assert {s.script for s in again.samples} == {s.script for s in first.samples}


@pytest.mark.parametrize(
    ("fault", "words"), [("refuse", "HTTP 400"), ("cut", "stopped it|counted"), ("count", "counted")]
)
def test_a_server_that_misbehaves_is_never_a_number(tmp_path: Path, fault: str, words: str) -> None:
    with serving(Engine(fault=fault)) as url, pytest.raises(InvalidMeasurement, match=words) as caught:
        profile_endpoint(job(url), tmp_path, silent)
    assert caught.value.exit_code == 4


def test_no_server_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="can't reach"):
        profile_endpoint(job("http://127.0.0.1:9"), tmp_path, silent)


def test_an_unknown_kv_capacity_must_be_given(tmp_path: Path) -> None:
    with serving(Engine(), metrics=False) as url:
        with pytest.raises(InputError, match="KV cache"):
            profile_endpoint(job(url), tmp_path, silent)
        result = profile_endpoint(job(url, kv_capacity_tokens=5000, repeats=1), tmp_path, silent)
    assert result.kv_capacity_tokens == 5000
