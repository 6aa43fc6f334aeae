"""The design: it fits every engine, shows every term, and costs what it promises."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hgpu.core.operating_point import EngineOptions
from hgpu.profilers.design import Script, batches, design, geometric

CPU = EngineOptions(max_num_batched_tokens=512, max_num_seqs=16, max_model_len=2048)
engines = st.builds(
    EngineOptions,
    max_num_batched_tokens=st.integers(64, 16384),
    max_num_seqs=st.integers(1, 512),
    max_model_len=st.integers(512, 131072),
)


@settings(deadline=None)
@given(engines, st.integers(256, 200_000))
def test_every_script_fits_its_engine(engine: EngineOptions, setup_tokens: int) -> None:
    scripts = design(engine, setup_tokens)
    assert len({script.name for script in scripts}) == len(scripts)
    for script in scripts:
        assert script.seqs <= engine.max_num_seqs
        assert script.longest_prompt < engine.max_model_len
        assert script.decode_context + len(script.rungs) * script.decode_steps < engine.max_model_len


@settings(deadline=None)
@given(engines, st.integers(256, 200_000))
def test_a_ladder_prefills_no_more_than_it_may(engine: EngineOptions, setup_tokens: int) -> None:
    for script in design(engine, setup_tokens):
        assert script.decode_seqs * script.decode_context <= max(setup_tokens, 16 * script.decode_seqs)


def test_enough_scripts_to_hold_some_out_in_every_phase() -> None:
    scripts = design(CPU, 1024)
    phases = [batch.phase for script in scripts for batch in batches(script, 512)]
    assert len(scripts) >= 10
    assert {phase: phases.count(phase) >= 2 for phase in ("prefill", "decode", "mixed")} == {
        "prefill": True,
        "decode": True,
        "mixed": True,
    }


def test_contexts_and_batch_sizes_vary_apart() -> None:
    steps = [b for s in design(CPU, 1024) for b in batches(s, 512) if b.phase == "decode"]
    alone = {round(b.decode_context_tokens) for b in steps if b.decode_seqs == 1}
    assert max(alone) > 10 * min(alone)
    assert {b.decode_seqs for b in steps} == {1, 2, 4, 8, 16}


def test_chunks_of_a_prompt_add_up() -> None:
    script = Script("s", decode_seqs=4, decode_context=100, decode_steps=2, prefill_tokens=1000)
    chunks = [b for b in batches(script, 512) if b.prefill_tokens]
    assert [b.prefill_tokens for b in chunks] == [508, 492]
    assert [b.prefill_context_tokens for b in chunks] == [0, 508]
    assert sum(b.prefill_pairs for b in chunks) == 1000 * 1001 / 2


@pytest.mark.parametrize(("high", "values"), [(1, [1]), (8, [1, 2, 4, 8]), (12, [1, 2, 4, 8, 12])])
def test_geometric_ends_on_its_end(high: int, values: list[int]) -> None:
    assert geometric(1, high, 2) == values
