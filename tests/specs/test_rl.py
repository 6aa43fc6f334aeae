from pathlib import Path
from typing import Any

import pytest
import yaml

from hgpu.core.errors import InputError
from hgpu.specs.load import load_any
from hgpu.specs.rl import RlSpec
from hgpu.specs.rl_rows import read_rows

LOOP: dict[str, Any] = {
    "kind": "rl",
    "workflow": "embodied",
    "envs": 64,
    "steps": 80,
    "components": [
        {"name": "actor", "seconds": {"H100-SXM": {4: 100}}},
        {"name": "env", "seconds": {"H100-SXM": {16: 0.1}}},
        {"name": "rollout", "seconds": {"H100-SXM": {16: 0.2}}},
    ],
    "pools": [{"gpu": "H100-SXM", "gpus": 4}],
}


def load(folder: Path, **changes: Any) -> RlSpec:
    path = folder / "loop.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in {**LOOP, **changes}.items() if v is not None}))
    spec = load_any(path)
    assert isinstance(spec, RlSpec)
    return spec


def test_an_embodied_loop_is_ordered_by_the_way_of_its_data(tmp_path: Path) -> None:
    assert [component.name for component in load(tmp_path).ordered] == ["env", "rollout", "actor"]


PIPELINE = [{"name": "rollout", "seconds": {"L4": {1: 2}}}, {"name": "actor", "seconds": {"L4": {1: 3}}}]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"workflow": "pipeline", "batches": 4, "envs": None, "steps": None}, "the last of them actor"),
        ({"components": LOOP["components"][:2]}, "has the components env, rollout, actor"),
        ({"components": [*LOOP["components"], LOOP["components"][0]]}, "two components have the same name"),
        ({"steps": None}, "needs steps and envs"),
        ({"batches": 4}, "needs steps and envs"),
        ({"workflow": "pipeline", "components": PIPELINE}, "needs steps and envs, and a pipeline batches"),
        ({"deadline_h": 3}, "say how many"),
        ({"pools": LOOP["pools"] * 2}, "two pools have the same GPU type"),
        ({"stages": []}, "at least 1 item"),
        ({"components": [{**LOOP["components"][0], "requests": 5}]}, "belong to the law rlinf_generation"),
        ({"reward": "all"}, "there is no such key"),
    ],
)
def test_a_spec_that_says_too_little_or_too_much_is_refused(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError) as refused:
        load(tmp_path, **changes)
    assert said in refused.value.why


def test_profiles_are_read_from_csv_and_json_alike(tmp_path: Path) -> None:
    csv, json = tmp_path / "a.csv", tmp_path / "a.json"
    csv.write_text("component,gpu,count,seconds\nenv,L4,4,0.5\n")
    json.write_text('[{"component": "env", "gpu": "L4", "count": 4, "seconds": 0.5}]')
    assert read_rows(csv) == read_rows(json)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("component,gpu,count,seconds\nenv,L4,4,0.5\nenv,L4,8,-1\n", "bad row 2, seconds"),
        ("component,gpu,count\nenv,L4,4\n", "bad row 1, seconds"),
        ("component,gpu,count,seconds\nsimulator,L4,4,1\n", "bad row 1, component"),
    ],
)
def test_a_bad_row_of_a_profile_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        read_rows(path)


def test_a_file_that_is_no_profile_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "a.json"
    broken.write_text("{")
    for path in (broken, tmp_path / "missing.csv"):
        with pytest.raises(InputError, match="can't read profiles"):
            read_rows(path)
