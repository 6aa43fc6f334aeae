"""Every verdict and its exit code, through the command line."""

import json
from pathlib import Path
from typing import Any

import pytest
from bench.made_loads import KEYS, Load, save_arm, save_load
from tests_types import Run

BASE, HEAD = range(5), range(10, 15)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "results"


def compared(hgpu: Run, *words: str, **env: str) -> tuple[int, dict[str, Any]]:
    done = hgpu("bench", "compare", *words, "--json", env=env)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)


def rows(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["metric"]: row for row in document["rows"]}


def test_a_slower_head_has_regressed(hgpu: Run, root: Path) -> None:
    arms = save_arm(root, BASE), save_arm(root, HEAD, Load(slower=1.12))
    code, document = compared(hgpu, *arms)
    assert code == 3 and document["verdict"] == "regressed"
    told = rows(document)
    for name in ("ttft_p50", "tpot_p50"):
        assert told[name]["verdict"] == "regressed"
        assert 0.05 < told[name]["low"] < told[name]["change"] < told[name]["high"]
        assert told[name]["change"] == pytest.approx(0.12, abs=0.015)
    assert told["goodput"]["verdict"] == told["failed"]["verdict"] == "ok"
    assert document["reasons"][0].startswith("ttft_p50 of 5 rps regressed")
    assert document["base"]["runs"] == document["head"]["runs"] == {"5 rps": 5}


def test_a_faster_head_has_improved_and_the_same_one_is_ok(hgpu: Run, root: Path) -> None:
    base = save_arm(root, BASE)
    code, document = compared(hgpu, base, save_arm(root, HEAD, Load(slower=0.85)))
    assert (code, document["verdict"]) == (0, "improved")
    code, document = compared(hgpu, base, save_arm(root, HEAD))
    assert (code, document["verdict"]) == (0, "ok")
    assert {row["verdict"] for row in document["rows"]} == {"ok"} and document["reasons"] == []


def test_noisy_runs_are_inconclusive_and_say_how_many_more(hgpu: Run, root: Path) -> None:
    noisy = Load(run_sd=0.08)
    arms = save_arm(root, BASE, noisy), save_arm(root, HEAD, noisy)
    code, document = compared(hgpu, *arms)
    assert (code, document["verdict"]) == (5, "inconclusive")
    row = rows(document)["tpot_p50"]
    assert row["verdict"] == "inconclusive" and (row["low"] < -0.05 or row["high"] > 0.05)
    assert row["more_runs"] > 0
    assert "more runs an arm may settle it" in hgpu("bench", "compare", *arms).stdout


@pytest.mark.parametrize("runs", [1, 2])
def test_few_runs_never_regress(hgpu: Run, root: Path, runs: int) -> None:
    arms = save_arm(root, BASE[:runs]), save_arm(root, HEAD, Load(slower=2.0))
    code, document = compared(hgpu, *arms)
    assert (code, document["verdict"]) == (5, "inconclusive")
    row = rows(document)["ttft_p50"]
    assert row["change"] == pytest.approx(1.0, abs=0.05) and row["low"] is None
    assert row["more_runs"] == 3 - runs and "3 are the fewest" in row["reason"]
    assert f"about {3 - runs} more runs" in hgpu("bench", "compare", *arms).stdout


def test_more_failures_or_a_lost_objective_is_a_regression_though_the_rest_is_as_fast(
    hgpu: Run, root: Path
) -> None:
    base = save_arm(root, BASE)
    code, document = compared(hgpu, base, save_arm(root, HEAD, Load(failed=10)))
    told = rows(document)
    assert code == 3 and {told[n]["verdict"] for n in ("failed", "attainment", "goodput")} == {"regressed"}
    assert told["failed"]["change"] == pytest.approx(0.05) and told["ttft_p50"]["verdict"] == "ok"


@pytest.mark.parametrize("trouble", ["6 % of requests failed", "the harness lagged 40 ms behind"])
@pytest.mark.parametrize("arm", [0, 1])
def test_a_run_that_is_not_valid_makes_the_comparison_invalid(
    hgpu: Run, root: Path, trouble: str, arm: int
) -> None:
    arms = [[save_arm(root, BASE)], [save_arm(root, HEAD)]]
    arms[arm].append(save_arm(root, [99], Load(trouble=trouble)))
    code, document = compared(hgpu, *(",".join(refs) for refs in arms))
    assert (code, document["verdict"], document["rows"]) == (4, "invalid", [])
    assert trouble in document["reasons"][0] and "5 rps" in document["reasons"][0]


@pytest.mark.parametrize("key", ["model_revision", "gpu", "workload", "engine"])
def test_what_differs_is_named_and_refused_unless_allowed(hgpu: Run, root: Path, key: str) -> None:
    arms = save_arm(root, BASE), save_arm(root, HEAD, Load(keys={**KEYS, key: "another"}))
    code, document = compared(hgpu, *arms)
    assert code == 4 and document["rows"] == []
    assert key in document["reasons"][0] and "another" in document["reasons"][0]
    code, document = compared(hgpu, *arms, "--allow", key)
    assert (code, document["verdict"]) == (0, "ok")
    assert document["mismatches"] == [{"key": key, "base": [KEYS[key]], "head": ["another"], "allowed": True}]
    assert compared(hgpu, *arms, "--allow", "model")[0] == 4
    assert f"accepted: {key}" in hgpu("bench", "compare", *arms, "--allow", key).stdout


def test_other_objectives_or_points_are_not_comparable(hgpu: Run, root: Path) -> None:
    base = save_arm(root, BASE)
    for head in (Load(slo=None), Load(points=("5 rps", "9 rps"))):
        assert compared(hgpu, base, save_arm(root, HEAD, head))[0] == 4
    code, document = compared(
        hgpu, base, save_arm(root, range(20, 25), Load(points=("5 rps", "9 rps"))), "--allow", "points"
    )
    assert code == 0 and {row["point"] for row in document["rows"]} == {"5 rps"}


def test_a_mixed_arm_is_refused_but_both_arms_may_vary_their_seeds_alike(hgpu: Run, root: Path) -> None:
    def arm(start: int, key: str) -> str:
        return ",".join(save_arm(root, [start + i], Load(keys={**KEYS, key: f"v{i}"})) for i in range(3))

    assert compared(hgpu, arm(0, "engine"), arm(10, "engine"))[0] == 4
    assert compared(hgpu, arm(20, "workload"), arm(30, "workload"))[0] == 0


def test_without_objectives_goodput_does_not_count_but_can_be_asked_for(hgpu: Run, root: Path) -> None:
    arms = save_arm(root, BASE, Load(slo=None)), save_arm(root, HEAD, Load(slo=None))
    code, document = compared(hgpu, *arms)
    assert code == 0 and "goodput" not in rows(document)
    code, document = compared(hgpu, *arms, "--metric", "goodput")
    assert code == 5 and "objectives" in rows(document)["goodput"]["reason"]


def test_a_tail_needs_enough_requests(hgpu: Run, root: Path) -> None:
    few = Load(requests=80)
    arms = save_arm(root, BASE, few), save_arm(root, HEAD, few)
    code, document = compared(hgpu, *arms)
    assert code == 5 and "p99 needs 100 requests a run" in rows(document)["ttft_p99"]["reason"]
    assert compared(hgpu, *arms, "--metric", "ttft_p50", "--metric", "tpot_p50")[0] == 0


def test_tolerances_are_the_users_to_set(hgpu: Run, root: Path) -> None:
    arms = save_arm(root, BASE), save_arm(root, HEAD, Load(slower=1.08))
    loose = ["--tolerance", "ttft_p50=0.2", "--tolerance", "tpot_p50=20%"]
    assert compared(hgpu, *arms, "--metric", "ttft_p50", "--metric", "tpot_p50")[0] == 3
    code, document = compared(hgpu, *arms, "--metric", "ttft_p50", "--metric", "tpot_p50", *loose)
    assert code == 0 and rows(document)["tpot_p50"]["tolerance"] == pytest.approx(0.2)
    assert rows(document)["tpot_p50"]["tolerance_source"] == "given"


def test_runs_may_come_one_by_one(hgpu: Run, root: Path) -> None:
    base = [save_load(root, number) for number in BASE]
    head = [save_load(root, number) for number in HEAD]
    together = compared(hgpu, ",".join(a.digest for a in base), ",".join(str(a.path) for a in head))[1]
    words = [word for a in base for word in ("--base", a.digest[:12])]
    words += [word for a in head for word in ("--head", str(a.path))]
    apart = compared(hgpu, *words)[1]
    assert apart["digest"] == together["digest"]  # and the same comparison is the same to the last digit
    assert apart["path"] != together["path"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["BASE", "BASE"], "stands twice"),
        (["BASE,BASE", "HEAD"], "stands twice"),
        (["BASE", ""], "no head"),
        (["BASE", "ffffff"], "no artifact with digest"),
        (["BASE", "HEAD", "--allow", "engin"], "did you mean engine"),
        (["BASE", "HEAD", "--metric", "ttft_p5"], "did you mean ttft_p50"),
        (["BASE", "HEAD", "--tolerance", "ttft_p5=0.1"], "unknown metric"),
        (["BASE", "HEAD", "--tolerance", "ttft_p50=lots"], "no tolerance"),
        (["BASE", "HEAD", "--tolerance", "ttft_p50=1"], "no tolerance"),
    ],
)
def test_bad_words_are_bad_input(hgpu: Run, root: Path, words: list[str], text: str) -> None:
    base, head = save_load(root, 0).digest[:12], save_load(root, 1).digest[:12]
    done = hgpu("bench", "compare", *(w.replace("BASE", base).replace("HEAD", head) for w in words))
    assert done.returncode == 2 and text in done.stderr, done.stderr


def test_a_load_test_without_its_requests_is_bad_input(hgpu: Run, root: Path) -> None:
    bare = save_load(root, 1)
    (bare.path / "requests.parquet").unlink()
    done = hgpu("bench", "compare", str(bare.path), save_arm(root, HEAD))
    assert done.returncode == 2 and "requests.parquet is missing" in done.stderr


def test_latest_is_refused_under_ci_and_means_a_load_test_elsewhere(hgpu: Run, root: Path) -> None:
    base = save_arm(root, BASE[:1])
    compared(hgpu, base, save_arm(root, HEAD[:1]))  # leaves a comparison, which is newer
    done = hgpu("bench", "compare", base, "latest")
    assert done.returncode == 5 and "head has latest: load" in done.stderr
    refused = hgpu("bench", "compare", base, "latest", env={"CI": "true"})
    assert refused.returncode == 2 and "refused under CI" in refused.stderr
