"""What tests with real vLLM engines share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hgpu.runtime.tiny_model import make_tiny_model


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a Llama with 11 million parameters and a trained tokenizer."""
    return make_tiny_model(tmp_path_factory.mktemp("model"), hidden_size=384, layers=6)


@pytest.fixture(autouse=True)
def same_environment() -> Iterator[None]:
    """Undo what vLLM writes into the environment where a test makes its configuration in this process."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
