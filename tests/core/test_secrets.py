"""Secrets are taken out of what is printed, longest first, and nothing else is."""

from hypothesis import given
from hypothesis import strategies as st

from hgpu.core.secrets import SECRET_VARIABLES, without_secrets


@given(st.dictionaries(st.sampled_from(SECRET_VARIABLES), st.text(st.characters(codec="ascii"), min_size=12)))
def test_no_value_survives(environment: dict[str, str]) -> None:
    text = " and ".join(["before", *environment.values(), "after"])
    made = without_secrets(text, environment)
    names = "".join(f"${name}" for name in SECRET_VARIABLES)
    assert not any(value in made and value not in names for value in environment.values() if "$" not in value)
    assert made.startswith("before") and made.endswith("after")


def test_a_secret_within_another_leaves_no_rest() -> None:
    environment = {"HF_TOKEN": "canary", "VLLM_API_KEY": "canary-and-more"}
    assert without_secrets("canary-and-more", environment) == "$VLLM_API_KEY"


def test_short_and_missing_values_change_nothing() -> None:
    assert without_secrets("an error in a test", {"HF_TOKEN": "a"}) == "an error in a test"
