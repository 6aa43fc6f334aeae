"""What is recorded of routing comes back from its file; what can't be recorded is refused with a reason."""

from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgpu.catalog.gpus import resolve_gpu
from hgpu.core.errors import ArtifactError, InputError
from hgpu.core.operating_point import OperatingPoint
from hgpu.profilers.experts import RoutingJob, read_prompts, refuse_unrecordable
from hgpu.profilers.experts_worker import _tokenized
from hgpu.profilers.routing_record import RoutingRecord, from_npz

JOB = RoutingJob("m", OperatingPoint("cpu-1core"), resolve_gpu("cpu-1core"), ("a", "b"), batches=(1, 2))


@st.composite
def records(draw: Any) -> RoutingRecord:
    rows, layers, per_token = draw(st.integers(1, 40)), draw(st.integers(1, 4)), draw(st.integers(1, 8))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    ids = random.integers(0, 512, (rows, layers, per_token)).astype(np.int32)
    numbers = random.integers(0, 2**20, (4, rows))
    gate = draw(st.sampled_from([None, ids - 1]))
    request, position = numbers[1].astype(np.int32), numbers[2].astype(np.int32)
    return RoutingRecord(ids, np.sort(numbers[0]), request, position, numbers[3], numbers[0] > 9, gate)


@given(records())
def test_a_record_comes_back_from_its_file(record: RoutingRecord) -> None:
    content = record.to_npz()
    again = from_npz(content)
    for field in fields(RoutingRecord):
        before, after = getattr(record, field.name), getattr(again, field.name)
        assert (before is None) == (after is None)
        if before is not None:
            assert before.dtype == after.dtype
            np.testing.assert_array_equal(before, after)
    assert again.to_npz() == content


def test_what_isnt_a_record_is_refused() -> None:
    record = RoutingRecord(*np.zeros((6, 1, 1, 1), np.int32))
    whole = record.to_npz()
    for content in (b"", b"PK", whole[:-30], whole.replace(b"request", b"tseuqer")):
        with pytest.raises(ArtifactError, match="isn't a routing record"):
            from_npz(content)


def test_prompts_are_read_from_json_lines(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "one"}\n\n{"prompt": "two\\nlines", "id": 7}\n')
    assert read_prompts(file) == ("one", "two\nlines")
    for line in ("one", '{"text": "one"}', '{"prompt": ""}', '["one"]'):
        file.write_text(f'{{"prompt": "one"}}\n{line}\n')
        with pytest.raises(InputError, match="line 2"):
            read_prompts(file)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"batches": (1, 3)}, "2 prompts don't fill a batch of 3"),
        ({"tokens": 1}, "nothing decodes"),
        ({"batches": ()}, "nothing decodes"),
        ({"point": replace(JOB.point, tp=2)}, "on 2 ranks"),
    ],
)
def test_what_no_machine_can_record_is_refused(change: dict[str, Any], says: str) -> None:
    refuse_unrecordable(JOB)
    with pytest.raises(InputError, match=says):
        refuse_unrecordable(replace(JOB, **change))


def test_prompts_are_never_cut() -> None:
    config = SimpleNamespace(model_config=SimpleNamespace(max_model_len=8))
    llm = SimpleNamespace(
        get_tokenizer=lambda: SimpleNamespace(encode=lambda text: list(text.encode())),
        llm_engine=SimpleNamespace(vllm_config=config),
    )
    assert _tokenized(llm, ["abc", "ab"], 5) == [[97, 98, 99], [97, 98]]
    with pytest.raises(InputError, match="prompt 1 has 4 tokens"):
        _tokenized(llm, ["abc", "abcd"], 5)
