"""Pages are well-formed, load nothing, escape everything, and say what the artifact says."""

import itertools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report.cases import GOLDEN, saved_load, saved_plan, saved_simulation
from report.page_reader import PageReader, read

from hgpu.artifacts.kinds import KINDS
from hgpu.artifacts.manifest import Validity
from hgpu.artifacts.payloads.plan import Baseline, Forbidden
from hgpu.artifacts.payloads.profile import SAMPLES_FILE, TELEMETRY_FILE
from hgpu.artifacts.related import related
from hgpu.artifacts.store import Artifact, Draft, load, save
from hgpu.latency.select import latency_draft, samples_of
from hgpu.profilers.samples import to_parquet
from hgpu.profilers.telemetry_summary import CardTelemetry, RunTelemetry, to_json
from hgpu.report.html.anything import any_page
from hgpu.report.html.pages import PAGES
from hgpu.report.html.plan import fleet_text
from hgpu.report.html.render import html_report, rendered

HOSTILE = (
    """</style></script><script>alert(1)</script>" onload="alert(2)' $x^2$ & <img src=x onerror=alert(3)>"""
)
CSS = (Path(__file__).parents[2] / "hgpu/report/html/templates/page.css").read_text(encoding="utf-8")


def page(root: Path, artifact: Artifact[Any]) -> str:
    return html_report(artifact, related(root, artifact))


def check_self_contained(reader: PageReader) -> None:
    """Nothing is loaded, nothing runs, and every id is there once and every link leads to one."""
    assert not reader.tags() & {"script", "link", "img", "iframe", "object", "embed", "base", "form", "video"}
    assert not [name for _, attrs in reader.elements for name in attrs if name.startswith("on")]
    assert not reader.values("src")
    ids = reader.values("id")
    assert len(ids) == len(set(ids))
    for target in reader.values("href") + reader.values("xlink:href"):
        assert target.startswith("#") and target[1:] in ids, target
    for url in re.findall(r"url\(([^)]*)\)", " ".join(reader.values("style") + reader.values("clip-path"))):
        assert url.startswith("#") and url[1:] in ids, url
    policy = next(attrs for tag, attrs in reader.elements if attrs.get("http-equiv"))
    assert policy["http-equiv"] == "Content-Security-Policy"
    assert policy["content"].startswith("default-src 'none'; style-src 'unsafe-inline'")


@pytest.mark.parametrize("folder", sorted(path.name for path in GOLDEN.iterdir()))
def test_every_golden_artifact_has_a_page_that_loads_nothing(tmp_path: Path, folder: str) -> None:
    artifact = load(GOLDEN / folder)
    html = page(tmp_path, artifact)
    reader = read(html)
    check_self_contained(reader)
    assert artifact.short in reader.text
    assert len(html.encode()) < 1_000_000


def test_no_style_loads_anything() -> None:
    assert "url(" not in CSS and "@import" not in CSS


def test_headings_go_down_one_level_at_a_time(tmp_path: Path) -> None:
    reader = read(page(tmp_path, load(GOLDEN / "plan.v2")))
    levels = [int(tag[1]) for tag, _ in reader.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_the_same_artifacts_give_the_same_page(tmp_path: Path) -> None:
    artifact = saved_load(tmp_path)
    assert page(tmp_path, artifact) == page(tmp_path, artifact)


def test_hostile_strings_stay_text_wherever_they_stand(tmp_path: Path) -> None:
    golden = load(GOLDEN / "plan.v2").payload
    row, route = golden.allocation[0], golden.routing[0]
    plan = saved_plan(
        tmp_path,
        service=HOSTILE,
        allocation=[row.model_copy(update={"pool": HOSTILE, "gpu": HOSTILE, "price_source": HOSTILE})],
        routing=[route.model_copy(update={"bucket": HOSTILE, "shares": {HOSTILE: 1.0}})],
        baselines=[
            Baseline(gpu=HOSTILE, count=1, cost_usd_per_hour=2.0),
            Baseline(gpu="<b>&$x^2$", count=2, cost_usd_per_hour=3.0),
        ],
        forbidden=[Forbidden(point=HOSTILE, buckets=1, reason=HOSTILE)],
    )
    reader = read(page(tmp_path, plan))
    check_self_contained(reader)
    assert "2× <b>&$x^2$" in reader.texts  # in the drawing, as it is
    assert reader.text.count(HOSTILE) > 8


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_hostile_reasons_and_payloads_stay_text_in_any_kind(tmp_path: Path, kind: str) -> None:
    artifact = load(GOLDEN / f"{kind}.v{KINDS[kind].version}")
    manifest = artifact.manifest.model_copy(
        update={
            "validity": Validity(valid=False, reasons=[HOSTILE]),
            "payload": {HOSTILE: [HOSTILE, {"inner": HOSTILE}], "none": None, "empty": []},
            "options": {"name": HOSTILE},
        }
    )
    hostile = replace(artifact, manifest=manifest)
    kin = related(tmp_path, artifact)
    for html in (html_report(hostile, kin), rendered(any_page(hostile, kin), hostile, kin, {})):
        reader = read(html)
        check_self_contained(reader)
        assert HOSTILE in reader.text


def test_what_is_invalid_is_said_before_anything_else(tmp_path: Path) -> None:
    payload = load(GOLDEN / "load.v1").payload
    artifact = save(
        tmp_path, Draft("load", "x", payload, validity=Validity(valid=False, reasons=["too slow"]))
    )
    text = read(page(tmp_path, artifact)).text
    assert text.index("INVALID") < text.index("too slow") < text.index("highest goodput")


def test_a_plan_shows_costs_pools_and_what_it_cant_use(tmp_path: Path) -> None:
    forbidden = [Forbidden(point="T4", buckets=3, reason="the cache is too small")]
    plan = saved_plan(tmp_path, forbidden=forbidden)
    text = read(page(tmp_path, plan)).text
    assert "no allocation serves the workload within the limits" in text  # the single type that can't
    assert "Can't serve it alone: cpu-2core." in text
    assert "the cache is too small" in text
    assert "No simulation of this plan is in the store" in text


def test_pools_of_one_type_are_told_apart_by_their_token_budget(tmp_path: Path) -> None:
    (row,) = load(GOLDEN / "plan.v2").payload.allocation
    small = replace(row.point, engine=replace(row.point.engine, max_num_batched_tokens=128))
    rows = [row, row.model_copy(update={"pool": "small", "point": small})]
    text = read(page(tmp_path, saved_plan(tmp_path, allocation=rows))).text
    assert "2× cpu-1core 512t + 2× cpu-1core 128t" in text
    assert fleet_text(saved_plan(tmp_path).payload) == "2× cpu-1core"


def test_a_plan_shows_the_simulations_of_itself_only(tmp_path: Path) -> None:
    plan, other = saved_plan(tmp_path), saved_plan(tmp_path, service="another")
    simulation = saved_simulation(tmp_path, plan)
    text = read(page(tmp_path, plan)).text
    assert f"simulation {simulation.short}" in text and "Attainment against rate" in text
    assert simulation.short not in page(tmp_path, other)


def test_routing_cells_are_shaded_by_their_share(tmp_path: Path) -> None:
    golden = load(GOLDEN / "plan.v2").payload
    first, second = (golden.allocation[0].model_copy(update={"pool": name}) for name in ("a", "b"))
    route = golden.routing[0].model_copy(update={"shares": {"a": 0.25, "b": 0.75}})
    plan = saved_plan(tmp_path, allocation=[first, second], routing=[route])
    reader = read(page(tmp_path, plan))
    shades = [attrs["style"] for tag, attrs in reader.elements if tag == "td" and "style" in attrs]
    assert shades == ["--share: 25.0%", "--share: 75.0%"]


def test_a_plan_of_very_many_buckets_shows_the_busiest_and_says_so(tmp_path: Path) -> None:
    route = load(GOLDEN / "plan.v2").payload.routing[0]
    many = [route.model_copy(update={"bucket": f"bucket {n}", "rate_rps": 1.0 + n}) for n in range(5000)]
    html = page(tmp_path, saved_plan(tmp_path, routing=many))
    assert "The 150 busiest of 5000 rows" in html
    assert "bucket 4999" in html and "bucket 1</th>" not in html
    assert len(html.encode()) < 1_000_000


def test_a_profile_of_very_many_steps_stays_small_and_says_what_is_drawn(tmp_path: Path) -> None:
    golden = load(GOLDEN / "profile.v2")
    samples = [
        replace(sample, step_s=sample.step_s * (1 + n / 997))
        for n in range(97)
        for sample in samples_of(golden)
    ]
    payload = golden.payload.model_copy(update={"samples": len(samples)})
    profile = save(tmp_path, Draft("profile", "x", payload, files={SAMPLES_FILE: to_parquet(samples)}))
    save(tmp_path, latency_draft(profile))
    html = page(tmp_path, profile)
    assert f"800 of {len(samples):,} steps are drawn" in html and "Residuals by step size" in html
    assert len(html.encode()) < 1_000_000


def test_a_fit_is_drawn_from_its_profile_or_says_that_it_is_missing(tmp_path: Path) -> None:
    golden = load(GOLDEN / "profile.v2")
    files = {SAMPLES_FILE: (golden.path / SAMPLES_FILE).read_bytes()}
    profile = save(tmp_path, Draft("profile", "x", golden.payload, files=files))
    fit = save(tmp_path, latency_draft(profile))
    assert "Fitted against measured steps" in page(tmp_path, fit)
    assert "isn&#39;t in the store" in page(tmp_path / "elsewhere", fit)


def test_a_profile_shows_what_its_cards_did(tmp_path: Path) -> None:
    golden = load(GOLDEN / "profile.v2")
    card = CardTelemetry("GPU 0", 5, power_mean_w=312.0, power_max_w=340.0, throttle=("SW power cap",))
    files = {
        SAMPLES_FILE: (golden.path / SAMPLES_FILE).read_bytes(),
        TELEMETRY_FILE: to_json([RunTelemetry("prefill", 0, (card,))]),
    }
    profile = save(tmp_path, Draft("profile", "x", golden.payload, files=files))
    text = read(page(tmp_path, profile)).text
    assert "312/340/-" in text and "SW power cap" in text
    assert "No card was read while it measured." in read(page(tmp_path, golden)).text


def test_void_points_of_a_load_test_are_marked_and_left_out_of_the_headline(tmp_path: Path) -> None:
    text = read(page(tmp_path, saved_load(tmp_path))).text
    assert "24 requests/s ✗: harness lag p99 is 50 ms" in text
    assert "1 of 3 points aren't valid" in text
    assert "Hollow points aren't valid." in text
    assert "highest goodput\n7.76\n" in text  # of the valid points, not the 23.3 of the void one


def test_a_placed_loop_shows_where_components_run_and_what_other_modes_cost(tmp_path: Path) -> None:
    artifact = load(GOLDEN / "placement.v1")
    text = read(page(tmp_path, artifact)).text
    assert "the cheapest placement" in text or "the fastest placement" in text
    for row in artifact.payload.components:
        assert f"{row.first_gpu}-{row.last_gpu}" in text and row.name in text
    assert {row.mode for row in artifact.payload.alternatives} <= set(text.replace(",", " ").split())


def test_a_damaged_relative_is_named_and_the_page_still_drawn(tmp_path: Path) -> None:
    plan = saved_plan(tmp_path)
    simulation = saved_simulation(tmp_path, plan)
    manifest = simulation.path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"seed": 0', '"seed": 1'))
    (tmp_path / "simulation" / "junk").mkdir()
    (tmp_path / "simulation" / "junk" / "manifest.json").write_text("not JSON")
    assert "is damaged or was edited" in read(page(tmp_path, plan)).text


def test_every_kind_in_the_registry_is_a_kind() -> None:
    assert set(PAGES) <= set(KINDS)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_contrast_of_at_least_four_and_a_half(theme: str) -> None:
    blocks = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
    assert len(blocks) == 2
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", blocks[theme == "dark"]))
    papers = ("paper", "raised")
    pairs = [(ink, paper) for ink in ("ink", "muted", "link", "bad") for paper in papers]
    pairs += [("ink", paper) for paper in ("good-paper", "bad-paper", "open-paper", "heat")]
    pairs += [(f"series-{n}", "paper") for n in range(1, 7)]
    low = {pair: contrast(colours[pair[0]], colours[pair[1]]) for pair in pairs}
    assert {pair: ratio for pair, ratio in low.items() if ratio < 4.5} == {}


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of WCAG 2.2: (L1 + 0.05)/(L2 + 0.05) of relative luminances."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)
