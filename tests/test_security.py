"""docs/security.md names tests that exist, and the source keeps its rules."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "hgpu").rglob("*.py"))
# Both ends are of one program: the load generator and its own workers.
PICKLES = {"hgpu/bench/worker.py", "hgpu/bench/workers.py"}


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_every_test_that_the_threat_table_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs/security.md").read_text()))
    texts = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    there = {name for text in texts for name in re.findall(r"def (test_\w+)", text)}
    assert len(named) > 15 and named - there == set()


def test_no_file_that_is_read_can_run_code() -> None:
    for path in SOURCES:
        name = str(path.relative_to(ROOT))
        text = path.read_text()
        for function, call in calls(ast.parse(text)):
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            assert function not in ("eval", "exec", "os.system", "marshal.loads", "torch.load"), name
            assert keywords.get("shell") != "True", name
            if function in ("yaml.load", "yaml.load_all", "yaml.compose"):
                assert "oader" in keywords["Loader"], name  # all are safe ones:
                assert not re.search(r"yaml\.(Full|Unsafe|C)?Loader\b", text), name
            if function.endswith("pickle.loads") or (function == "loads" and "pickle" in text):
                assert name in PICKLES, name


def test_nothing_asks_for_code_of_a_model() -> None:
    for path in SOURCES:
        assert not re.search(r"trust.remote.code", path.read_text()), path
