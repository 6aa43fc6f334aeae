from pathlib import Path

import pytest

from hgpu.core.errors import InputError
from hgpu.core.gpu import DType
from hgpu.specs.finetune import FinetuneSpec, Method, Offload
from hgpu.specs.finetune_job import finetune_of
from hgpu.specs.load import load_any, load_kind, load_spec
from hgpu.specs.serve import ServeSpec

SPEC = """kind: finetune
model: Qwen2.5-7B
method: lora
context: 1024
batch: 8
tokens: 1000000
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "spec.yaml"
    path.write_text(text)
    return path


def test_a_single_value_is_a_list_of_one_and_a_repeated_one_counts_once(tmp_path: Path) -> None:
    text = SPEC + "offload: [none, zero3, none]\ncheckpointing: true\nrank: [16, 16, 8]\ngpus: L4\n"
    spec = load_kind(write(tmp_path, text), FinetuneSpec)
    assert spec.method == [Method.LORA]
    assert spec.offload == [Offload.NONE, Offload.ZERO3]
    assert (spec.checkpointing, spec.rank, spec.gpus) == ([True], [16, 8], ["L4"])


@pytest.mark.parametrize("written", ["1e6", "1.0e6", "1E+6", "1_000_000"])
def test_tokens_may_be_written_as_powers_of_ten(tmp_path: Path, written: str) -> None:
    spec = load_kind(write(tmp_path, SPEC.replace("tokens: 1000000", f"tokens: {written}")), FinetuneSpec)
    assert spec.tokens == 1_000_000


@pytest.mark.parametrize(
    ("tokens", "name"),
    [("1e7", "10M"), ("9.98e8", "998M"), ("2e9", "2B")],
)
def test_a_fine_tune_is_named_by_its_tokens(tmp_path: Path, tokens: str, name: str) -> None:
    spec = load_kind(write(tmp_path, SPEC.replace("tokens: 1000000", f"tokens: {tokens}")), FinetuneSpec)
    assert finetune_of(spec).name == f"Qwen2.5-7B {name} tokens"


def test_a_digest_that_looks_like_a_power_of_ten_stays_a_digest(tmp_path: Path) -> None:
    spec = load_kind(write(tmp_path, SPEC + "host: {profile: 12345e678901}\n"), FinetuneSpec)
    assert spec.host.profile == "12345e678901"


@pytest.mark.parametrize("written", ["1e999", "1.5e0", "nan", "1e-3"])
def test_what_is_no_whole_number_is_no_count(tmp_path: Path, written: str) -> None:
    with pytest.raises(InputError, match="line 6: bad tokens"):
        load_any(write(tmp_path, SPEC.replace("tokens: 1000000", f"tokens: {written}")))


def test_tokens_and_steps_say_the_same_length(tmp_path: Path) -> None:
    by_tokens = load_kind(write(tmp_path, SPEC), FinetuneSpec)
    assert (by_tokens.tokens_per_step, by_tokens.total_steps) == (8192, 123)  # ⌈1,000,000 / 8,192⌉
    by_steps = load_kind(write(tmp_path, SPEC.replace("tokens: 1000000", "steps: 123")), FinetuneSpec)
    assert by_steps.total_tokens == by_tokens.total_tokens == 123 * 8192


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("method: lora", "method: qlora"), ["line 3", "method", "'full', 'lora' or 'lamda'"]),
        (("method: lora", "method: []"), ["line 3", "method"]),
        (("method: lora", "method: [{a: 1}]"), ["line 3", "method"]),
        (("tokens: 1000000", "seed: 1"), ["either tokens", "or steps"]),
        (("tokens: 1000000", "tokens: 1\nsteps: 1"), ["either tokens", "or steps"]),
        (("batch: 8", "batch: 8\ndtype: fp8"), ["bf16, fp16, fp32"]),
        (("batch: 8", "batch: 8\nslo: {}"), ["line 6", "slo", "hgpu init finetune"]),
        (("batch: 8", "batch: 8\nhost: {cxl_cards: 2}"), ["line 6", "cxl_memory_gib"]),
        (("batch: 8", "batch: 8\nbatch: 16"), ["line 6", "batch is given twice", "line 5"]),
        (
            ("batch: 8", "batch: 8\nhost: {cxl_cards: 0, cxl_cards: 0}"),
            ["line 6", "is given twice"],
        ),
    ],
)
def test_a_bad_spec_names_the_line_the_field_and_a_remedy(
    tmp_path: Path, change: tuple[str, str], words: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        load_any(write(tmp_path, SPEC.replace(*change)))
    for word in words:
        assert word in str(caught.value)
    assert caught.value.fix


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("Qwen2.5-7B", "Qwen3-30B-A3B"), "routes each token to 8 of 128 experts"),
        (("Qwen2.5-7B", "DeepSeek-V3"), "routes each token to 8 of 256 experts"),
        (("Qwen2.5-7B", "Meta-Llama-3.1-8B-Instruct-FP8"), "can't be trained in"),
        (("context: 1024", "context: 999999"), "its context is 131072"),
        (("method: lora", "method: lora\nrank: 1024"), "rank 1024 doesn't fit k_proj of 512 × 3584"),
        (("method: lora", "method: lora\ntargets: [gate]"), "unknown target module"),
        (("method: lora", "method: lora\ngpus: L40"), "unknown GPU type"),
        (("method: lora", "method: lora\ngpus: T4\noffers: {clouds: [lambda]}"), "nothing offers the GPUs"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_a_remedy(
    tmp_path: Path, change: tuple[str, str], words: str
) -> None:
    with pytest.raises(InputError) as caught:
        finetune_of(load_kind(write(tmp_path, SPEC.replace(*change)), FinetuneSpec))
    assert words in str(caught.value) and caught.value.fix


def test_micro_batches_divide_each_copys_share_the_most_first(tmp_path: Path) -> None:
    asked = finetune_of(load_kind(write(tmp_path, SPEC.replace("batch: 8", "batch: 24")), FinetuneSpec))
    assert asked.micro_batches(1) == [24, 8, 4, 2, 1]
    assert asked.micro_batches(2) == [12, 4, 2, 1]
    assert asked.micro_batches(7) == []
    assert all(24 % (v.dp * v.micro_batch) == 0 for v in asked.variants())


def test_a_spec_of_another_kind_is_refused_by_its_kind(tmp_path: Path) -> None:
    path = write(tmp_path, SPEC + "dtype: bf16\n")
    with pytest.raises(InputError, match="kind 'finetune'") as caught:
        load_spec(path)
    assert "hgpu init serve" in caught.value.fix
    with pytest.raises(InputError, match="kind 'finetune'"):
        load_kind(path, ServeSpec)
    assert load_kind(path, FinetuneSpec).dtype is DType.BF16
