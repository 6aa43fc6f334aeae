import pytest

from hgpu.profilers.last_words import blames_port, last_words

FAILED_ENGINE = """
(APIServer pid=5797) INFO 11-22 08:04:38 [api_utils.py:347] version 0.32.0
(EngineCore pid=59) ERROR 11-22 08:05:03 [core.py:133] Traceback (most recent call last):
(EngineCore pid=59) ERROR 11-22 08:05:03 [core.py:133]   File "vllm/v1/engine/core.py", line 1, in run
(EngineCore pid=59) ERROR 11-22 08:05:03 [core.py:133] ValueError: No available memory for the cache blocks.
(EngineCore pid=59) Exception: WorkerProc initialization failed. See stack trace for root cause.
(APIServer pid=5797) Traceback (most recent call last):
(APIServer pid=5797)     raise RuntimeError(
(APIServer pid=5797) RuntimeError: Engine core initialization failed. See root cause above. Failed: {}
nanobind: leaked 12 functions!
 - leaked function "get_null_value"
 - ... skipped remainder
"""


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (FAILED_ENGINE, "ValueError: No available memory for the cache blocks."),
        ("\x1b[2mtime\x1b[0m \x1b[31mERROR\x1b[0m engine lost\n", "time ERROR engine lost"),
        ("pyo3_runtime.PanicException: no listener\nDEBUG: x\n", "pyo3_runtime.PanicException: no listener"),
        (
            "x.ValidationError: 1 validation error for ModelConfig\n  Value error, too long\n    See https://e\n",
            "x.ValidationError: 1 validation error for ModelConfig: Value error, too long",
        ),
        ("started\n\n", "started"),
        ("", "it wrote nothing to its log"),
    ],
)
def test_last_words_are_the_cause(tmp_path, log, words):
    path = tmp_path / "engine.log"
    path.write_text(log)
    assert last_words(path) == words
    assert not blames_port(path)


def test_missing_log_has_no_words(tmp_path):
    assert last_words(tmp_path / "none.log") == "it wrote nothing to its log"


@pytest.mark.parametrize(
    "line",
    ["OSError: [Errno 98] Address already in use", "RuntimeError: Address already in use (os error 98)"],
)
def test_a_taken_port_is_recognised(tmp_path, line):
    path = tmp_path / "engine.log"
    path.write_text(f"INFO starting\n{line}\nnanobind: leaked\n")
    assert blames_port(path)
    assert last_words(path) == line
