"""The secrets of the environment, and texts without them."""

import os
from collections.abc import Mapping

SECRET_VARIABLES = (
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "VLLM_API_KEY",
    "HGPU_API_KEY",
    "OPENAI_API_KEY",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_CLIENT_SECRET",
)
SHORTEST = 6  # a shorter value would also be taken out of words that have nothing to do with it


def without_secrets(text: str, environment: Mapping[str, str] | None = None) -> str:
    """Return a text in which the values of secret variables are replaced by the variables' names."""
    values = os.environ if environment is None else environment
    found = [(values.get(name, ""), name) for name in SECRET_VARIABLES]
    for value, name in sorted(found, key=lambda pair: -len(pair[0])):
        if len(value) >= SHORTEST:
            text = text.replace(value, f"${name}")
    return text
