import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests_types import Run

from hgpu.artifacts.store import Artifact, Draft, save
from hgpu.catalog.models import load_model
from hgpu.core.gpu import DType
from hgpu.core.operating_point import EngineOptions, OperatingPoint
from hgpu.core.provenance import Provenance
from hgpu.latency.select import estimated

MODEL = "meta-llama/Llama-3.1-8B"
HEADER = "model,gpu,tp,dtype,input_tokens,output_tokens,concurrency"
ONE = ("--model", MODEL, "--gpu", "H100-SXM")
ROOFLINE = ("--from", "roofline")


def points(tmp_path: Path, *lines: str, header: str = HEADER) -> str:
    path = tmp_path / "points.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return str(path)


def fitted(
    root: Path, slower: float = 1.0, engine: EngineOptions | None = None, valid: bool = True
) -> Artifact:
    """Save a fit that says of itself that it was measured: a roofline, slowed down."""
    made = estimated(root, load_model(MODEL), OperatingPoint("H100-SXM", engine=engine or EngineOptions()))
    latency = made.payload.latency
    step = replace(latency.step, linear_s=slower * latency.step.linear_s)
    changed = replace(latency, step=step, provenance=Provenance.FITTED)
    draft = Draft("latency", f"stand-in-{slower:g}", made.payload.model_copy(update={"latency": changed}))
    if not valid:
        draft = replace(
            draft, validity=draft.validity.model_copy(update={"valid": False, "reasons": ["test"]})
        )
    return save(root, draft)


def test_one_point_by_options_is_answered_with_its_source(hgpu: Run) -> None:
    done = hgpu(
        "estimate", *ONE, "--input", "2000", "--output", "100", "--concurrency", "8", *ROOFLINE, "--json"
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    (row,) = document["estimates"]
    assert [row[name] for name in HEADER.split(",")] == [MODEL, "H100-SXM", 1, "bf16", 2000, 100, 8]
    assert row["source"] == "roofline" and row["provenance"] == "estimated" and row["error"] is None
    assert 0.02 < row["ttft_s"] < 1 and 0.004 < row["tpot_s"] < 0.05
    assert 0 < row["output_tok_per_s"] < 8 / row["tpot_s"]
    assert document["harness"]["requests_per_slot"] == 10 and document["harness"]["drift_tokens"] == 16
    assert document["harness"]["input_spread"] == row["input_spread"] == 0.1
    assert document["harness"]["output_spread"] == row["output_spread"] == 0.2
    assert row["max_num_batched_tokens"] == 8192
    assert "source roofline" in done.stderr and "no measurement" in done.stderr


def test_a_table_of_points_keeps_their_order_and_names(hgpu: Run, tmp_path: Path) -> None:
    file = points(
        tmp_path,
        f"{MODEL},h100_sxm,1,bf16,1000,100,1",
        "qwen3-8b,NVIDIA L4,2,FP8,500,50,4",
        "",
        f"{MODEL},h100_sxm,1,bf16,1000,100,64",
        f"{MODEL},h100_sxm,1,bf16,1000,100,1",
    )
    done = hgpu("estimate", "--points", file, *ROOFLINE, "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["estimates"]
    assert [row["gpu"] for row in rows] == ["h100_sxm", "NVIDIA L4", "h100_sxm", "h100_sxm"]
    assert [row["dtype"] for row in rows] == ["bf16", "fp8", "bf16", "bf16"]
    assert rows[0] == rows[3]
    assert rows[2]["ttft_s"] > rows[0]["ttft_s"] and rows[2]["output_tok_per_s"] > rows[0]["output_tok_per_s"]
    shown = hgpu("estimate", "--points", file, *ROOFLINE)
    assert "TTFT ms" in shown.stdout and "NVIDIA L4" in shown.stdout


def test_a_point_that_fits_no_memory_has_an_error_and_no_numbers(hgpu: Run, tmp_path: Path) -> None:
    too_large = "meta-llama/Llama-3.1-70B,L4,1,bf16,1000,100,1"
    file = points(tmp_path, too_large, f"{MODEL},L4,1,bf16,100,10,1", f"{MODEL},L4,1,bf16,200000,100,1")
    done = hgpu("estimate", "--points", file, *ROOFLINE, "--json")
    assert done.returncode == 0, done.stderr
    memory, good, context = json.loads(done.stdout)["estimates"]
    assert good["error"] is None and good["tpot_s"] > 0
    assert "doesn't fit" in memory["error"] and "its context has 131072" in context["error"]
    for row in (memory, context):
        assert {row[name] for name in ("ttft_s", "tpot_s", "output_tok_per_s", "provenance", "source")} == {
            None
        }
    alone = hgpu("estimate", "--points", points(tmp_path, too_large), *ROOFLINE, "--json")
    assert alone.returncode == 3 and json.loads(alone.stdout)["estimates"][0]["error"]
    shown = hgpu("estimate", "--points", points(tmp_path, too_large), *ROOFLINE)
    assert shown.returncode == 3 and "row 1 has no answer" in shown.stdout


def test_a_request_longer_than_the_cache_is_an_error_of_its_row(hgpu: Run) -> None:
    done = hgpu("estimate", "--model", MODEL, "--gpu", "L4", "--input", "100000", *ROOFLINE, "--json")
    assert done.returncode == 3
    assert "don't fit the KV cache" in json.loads(done.stdout)["estimates"][0]["error"]


def test_one_output_token_has_no_tpot(hgpu: Run) -> None:
    done = hgpu("estimate", *ONE, "--output", "1", *ROOFLINE, "--json")
    (row,) = json.loads(done.stdout)["estimates"]
    assert row["tpot_s"] is None and row["ttft_s"] > 0 and row["error"] is None
    assert hgpu("estimate", *ONE, "--output", "1", *ROOFLINE).returncode == 0


@pytest.mark.parametrize(
    ("line", "where"),
    [
        ("llama-9-8b,L4,1,bf16,1,1,1", "line 2, column model: unknown model"),
        (f"{MODEL},L5,1,bf16,1,1,1", "line 2, column gpu: unknown GPU type 'L5'"),
        (f"{MODEL},L4,0,bf16,1,1,1", "line 2, column tp: '0' is no whole number"),
        (f"{MODEL},L4,1,bf17,1,1,1", "line 2, column dtype: unknown format 'bf17'"),
        (f"{MODEL},L4,1,bf16,1e3,1,1", "line 2, column input_tokens"),
        (f"{MODEL},L4,1,bf16,1,-5,1", "line 2, column output_tokens"),
        (f"{MODEL},L4,1,bf16,1,1,", "line 2, column concurrency: '' is no whole number"),
        (f"{MODEL},L4,1,bf16,1,1", "line 2: bad row"),
        (f'"{MODEL},L4,1,bf16,1,1,1', "bad CSV"),
        ("", "is empty"),
    ],
)
def test_a_bad_cell_is_named_by_line_and_column(hgpu: Run, tmp_path: Path, line: str, where: str) -> None:
    done = hgpu("estimate", "--points", points(tmp_path, line))
    assert done.returncode == 2 and where in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_headers_may_be_in_any_order_but_none_may_lack(hgpu: Run, tmp_path: Path) -> None:
    header = "measured_ttft_ms,concurrency,output_tokens,input_tokens,dtype,tp,gpu,model"
    file = points(tmp_path, f"12,1,10,100,bf16,1,H100-SXM,{MODEL}", header=header)
    done = hgpu("estimate", "--points", file, *ROOFLINE, "--json")
    assert json.loads(done.stdout)["estimates"][0]["input_tokens"] == 100
    assert "mean nothing here: measured_ttft_ms" in done.stderr
    lacking = hgpu("estimate", "--points", points(tmp_path, "1", header="model,gpu"))
    assert lacking.returncode == 2 and "no column tp, dtype" in lacking.stderr


def test_the_cache_format_is_an_option_and_an_optional_column(hgpu: Run, tmp_path: Path) -> None:
    load = f"{MODEL},L4,1,bf16,7000,500,8"
    file = points(tmp_path, f"{load},", f"{load},FP8", f"{load},bf16", header=f"{HEADER},kv_dtype")
    done = hgpu("estimate", "--points", file, *ROOFLINE, "--json")
    assert done.returncode == 0, done.stderr
    assert "mean nothing here" not in done.stderr and "bf16, KV cache in fp8" in done.stderr
    plain, small, spelled = json.loads(done.stdout)["estimates"]
    assert [row["kv_dtype"] for row in (plain, small, spelled)] == ["bf16", "fp8", "bf16"]
    # With a 16-bit cache an L4 holds about four of these requests at once; with an 8-bit one all eight.
    assert small["ttft_s"] < 0.8 * plain["ttft_s"]
    assert small["output_tok_per_s"] > 1.2 * plain["output_tok_per_s"]
    figures = ("ttft_s", "tpot_s", "output_tok_per_s")
    assert [spelled[name] for name in figures] == [plain[name] for name in figures]
    words = ("--model", MODEL, "--gpu", "L4", "--input", "7000", "--output", "500", "--concurrency", "8")
    (alone,) = json.loads(hgpu("estimate", *words, "--kv-dtype", "fp8", *ROOFLINE, "--json").stdout)[
        "estimates"
    ]
    assert alone == small
    shown = hgpu("estimate", *words, "--kv-dtype", "fp8", *ROOFLINE)
    assert "bf16, KV fp8" in " ".join(shown.stdout.split())
    bad = hgpu("estimate", *words, "--kv-dtype", "int4")
    assert bad.returncode == 2 and "option kv_dtype: unknown format 'int4'" in bad.stderr
    file = points(tmp_path, f"{load},int8", header=f"{HEADER},kv_dtype")
    bad = hgpu("estimate", "--points", file)
    assert bad.returncode == 2 and "line 2, column kv_dtype: unknown format 'int8'" in bad.stderr


def test_a_row_states_its_harness_and_token_budget(hgpu: Run, tmp_path: Path) -> None:
    load = f"{MODEL},H100-SXM,1,bf16,4000,100,32"
    header = f"{HEADER},max_num_batched_tokens,input_spread,output_spread"
    file = points(
        tmp_path, f"{load},,,", f"{load},8192,0.5,0.25", f"{load},,0,0", f"{load},512,,", header=header
    )
    words = ("--input-spread", "0.5", "--output-spread", "0.25", *ROOFLINE)
    done = hgpu("estimate", "--points", file, *words, "--json")
    assert done.returncode == 0, done.stderr
    assert "mean nothing here" not in done.stderr
    document = json.loads(done.stdout)
    plain, spelled, fixed, small = document["estimates"]
    assert document["harness"]["input_spread"] == 0.5
    assert spelled == plain
    harness = ("input_spread", "output_spread", "max_num_batched_tokens")
    assert [plain[name] for name in harness] == [0.5, 0.25, 8192]
    assert [fixed[name] for name in harness] == [0, 0, 8192]
    assert [small[name] for name in harness] == [0.5, 0.25, 512]
    assert fixed["ttft_s"] > 1.2 * plain["ttft_s"]  # a quarter more prompt tokens
    assert small["ttft_s"] > 1.2 * plain["ttft_s"]  # nine steps a prompt, each with decodes
    shown = " ".join(hgpu("estimate", "--points", file, *words).stdout.split())
    assert "lengths as the rows state" in shown
    alone = " ".join(hgpu("estimate", *ONE, *words).stdout.split())
    assert "inputs reach 50% below nominal, outputs 25% or 16 tokens" in alone


@pytest.mark.parametrize(
    ("cells", "where"),
    [
        ("0.1,1,", "line 2, column output_spread: '1' is no number from 0 to below 1"),
        ("-0.1,0,", "line 2, column input_spread: '-0.1' is no number"),
        ("nan,0,", "line 2, column input_spread: 'nan' is no number"),
        ("20%,0,", "line 2, column input_spread: '20%' is no number"),
        ("0,0,15", "line 2, column max_num_batched_tokens: '15' is no whole number from 16 to"),
        ("0,0,8k", "line 2, column max_num_batched_tokens: '8k' is no whole number"),
    ],
)
def test_a_bad_harness_is_named_by_line_and_column(hgpu: Run, tmp_path: Path, cells: str, where: str) -> None:
    header = f"{HEADER},input_spread,output_spread,max_num_batched_tokens"
    file = points(tmp_path, f"{MODEL},L4,1,bf16,1000,100,1,{cells}", header=header)
    done = hgpu("estimate", "--points", file)
    assert done.returncode == 2 and where in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_a_budget_below_the_sequences_limits_these_too(hgpu: Run, tmp_path: Path) -> None:
    header = f"{HEADER},max_num_batched_tokens"
    load = f"{MODEL},L4,1,bf16,100,50,64"
    file = points(tmp_path, f"{load},16", f"{load},32", f"{load},64", header=header)
    done = hgpu("estimate", "--points", file, *ROOFLINE, "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["estimates"]
    assert [row["max_num_batched_tokens"] for row in rows] == [16, 32, 64]
    # Of 64 in flight, so many requests run at once as the budget has tokens; the others wait for a slot.
    waits_s = [row["ttft_s"] for row in rows]
    assert waits_s[0] > 1.5 * waits_s[1] > 1.5 * 1.5 * waits_s[2]


@pytest.mark.parametrize("words", [[], ["--model", MODEL], ["--gpu", "L4"], [*ONE, "--points", "x.csv"]])
def test_one_of_options_and_file_is_needed(hgpu: Run, words: list[str]) -> None:
    done = hgpu("estimate", *words)
    assert done.returncode == 2 and "what to estimate isn't clear" in done.stderr


def test_auto_prefers_a_fit_and_says_how_its_options_differ(hgpu: Run, tmp_path: Path) -> None:
    root = tmp_path / "results"
    fit = fitted(root, slower=3.0)
    done = hgpu("estimate", *ONE, "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["estimates"]
    assert row["source"] == "fit" and row["provenance"] == "simulated" and row["latency"] == fit.digest
    assert "max_num_batched_tokens 2048, not 8192" in row["note"] and row["note"] in done.stderr
    (roofline,) = json.loads(hgpu("estimate", *ONE, *ROOFLINE, "--json").stdout)["estimates"]
    assert roofline["source"] == "roofline" and roofline["tpot_s"] < 0.5 * row["tpot_s"]
    (other,) = json.loads(hgpu("estimate", *ONE, "--tp", "2", "--json").stdout)["estimates"]
    assert other["source"] == "roofline"


def test_a_fit_with_another_cache_is_of_another_point(hgpu: Run, tmp_path: Path) -> None:
    root = tmp_path / "results"
    fit = fitted(root, slower=3.0)
    (small,) = json.loads(hgpu("estimate", *ONE, "--kv-dtype", "fp8", "--json").stdout)["estimates"]
    assert small["source"] == "roofline"
    (spelled,) = json.loads(hgpu("estimate", *ONE, "--kv-dtype", "bf16", "--json").stdout)["estimates"]
    assert spelled["source"] == "fit" and "kv_cache_dtype" not in spelled["note"]
    wrong = hgpu("estimate", *ONE, "--kv-dtype", "fp8", "--latency", fit.digest[:12])
    assert wrong.returncode == 2 and "is of no point that is asked about" in wrong.stderr
    eight = fitted(root, slower=2.0, engine=EngineOptions(kv_cache_dtype=DType.FP8))
    (found,) = json.loads(hgpu("estimate", *ONE, "--kv-dtype", "fp8", "--json").stdout)["estimates"]
    assert found["latency"] == eight.digest


def test_an_invalid_fit_is_not_taken(hgpu: Run, tmp_path: Path) -> None:
    fitted(tmp_path / "results", slower=3.0, valid=False)
    done = hgpu("estimate", *ONE, "--from", "fit", "--json")
    assert done.returncode == 3
    assert "source 'fit' has none" in json.loads(done.stdout)["estimates"][0]["error"]


def test_a_fit_can_be_named_and_must_be_under_ci(hgpu: Run, tmp_path: Path) -> None:
    root = tmp_path / "results"
    first, _ = fitted(root, slower=2.0), fitted(root, slower=3.0)
    refused = hgpu("estimate", *ONE, env={"CI": "true"})
    assert refused.returncode == 2 and "CI=true" in refused.stderr
    named = hgpu("estimate", *ONE, "--latency", first.digest[:12], "--json", env={"CI": "true"})
    assert json.loads(named.stdout)["estimates"][0]["latency"] == first.digest
    wrong = hgpu("estimate", "--model", MODEL, "--gpu", "L4", "--latency", first.digest[:12])
    assert wrong.returncode == 2 and "is of no point that is asked about" in wrong.stderr


def test_unknown_sources_are_refused_with_the_known_ones(hgpu: Run) -> None:
    done = hgpu("estimate", *ONE, "--from", "rooflin")
    assert done.returncode == 2 and "did you mean roofline" in done.stderr


def test_the_load_is_made_as_asked(hgpu: Run) -> None:
    def row(*words: str) -> dict[str, float]:
        done = hgpu("estimate", *ONE, "--concurrency", "32", *ROOFLINE, "--json", *words)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["estimates"][0]

    plain = row("--request-ms", "0")
    assert row() == row("--request-ms", "20")  # what estimates assume
    assert plain["ttft_s"] != row("--request-ms", "0", "--seed", "1")["ttft_s"]
    shorter = row("--request-ms", "0", "--input-spread", "0.9")
    assert shorter["input_spread"] == 0.9 and shorter["ttft_s"] < 0.8 * plain["ttft_s"]
    apart = row("--request-ms", "0", "--output-spread", "0.9")
    assert apart["output_spread"] == 0.9 and apart["output_tok_per_s"] < 0.9 * plain["output_tok_per_s"]
    assert (
        row("--request-ms", "0", "--requests-per-slot", "1")["ttft_s"] > plain["ttft_s"]
    )  # only the first burst
    costly = row("--request-ms", "20", "--step-ms", "1")
    assert costly["ttft_s"] > plain["ttft_s"] + 0.02 and costly["tpot_s"] > plain["tpot_s"] + 0.0005
