"""The host memory of offloaded training is the paper's, tensor by tensor."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgpu.catalog.models import load_model
from hgpu.core.errors import InputError
from hgpu.core.training_tensors import TrainingShape, host_bytes, offloaded_tensors

NEMO = TrainingShape(12_248_000_000, layers=40, hidden_size=5120, batch=1, context_tokens=32_768)
SHAPES = st.builds(
    TrainingShape,
    st.integers(1, 10**11),
    st.integers(1, 100),
    st.integers(1, 20_000),
    st.integers(1, 64),
    st.integers(1, 10**6),
    st.integers(1, 8),
)


def test_qwen_7b_takes_152_gb_and_13_gb_of_checkpoints() -> None:
    model = load_model("Qwen/Qwen2.5-7B")
    shape = TrainingShape(model.total_params, model.layers, model.hidden_size, 16, 4096)
    assert host_bytes(offloaded_tensors(shape)) - shape.checkpoint_bytes == 20 * model.total_params
    assert 20 * model.total_params / 1e9 == pytest.approx(152.3, abs=0.05)
    assert shape.checkpoint_bytes / 1e9 == pytest.approx(13.15, abs=0.005)


def test_mistral_nemo_12b_takes_245_gb_and_13_gb_of_checkpoints() -> None:
    assert (host_bytes(offloaded_tensors(NEMO)) - NEMO.checkpoint_bytes) / 1e9 == pytest.approx(
        245.0, abs=0.05
    )
    assert NEMO.checkpoint_bytes / 1e9 == pytest.approx(13.42, abs=0.005)


@given(SHAPES)
def test_the_optimizer_moves_28_bytes_a_parameter_and_2_for_the_copy(shape: TrainingShape) -> None:
    tensors = offloaded_tensors(shape)
    assert sum(row.optimizer_bytes for row in tensors if row.level == 1) == 28 * shape.params
    assert sum(row.optimizer_bytes for row in tensors) == 30 * shape.params
    assert [row.level for row in tensors] == sorted(row.level for row in tensors)


@given(SHAPES)
def test_more_devices_keep_more_checkpoints_and_read_the_weights_more_often(shape: TrainingShape) -> None:
    one, two = (offloaded_tensors(replace(shape, devices=count)) for count in (1, 2))
    assert [row.size_bytes for row in one if row.level != 3] == [
        row.size_bytes for row in two if row.level != 3
    ]
    assert 2 * sum(row.to_device_backward_bytes for row in one) == sum(
        row.to_device_backward_bytes for row in two
    )
    assert 2 * one[5].size_bytes == two[5].size_bytes


def test_a_step_without_tokens_is_refused() -> None:
    with pytest.raises(InputError, match="context_tokens 0"):
        replace(NEMO, context_tokens=0)
