"""Pages in a real browser: no console error, no request, no overflow on a phone, dark, by keyboard."""

import asyncio
from pathlib import Path

import pytest
from report.cases import GOLDEN, saved_load, saved_plan, saved_simulation
from report.chromium import PROGRAM, Tab, tab
from tests_types import Run

from hgpu.artifacts.related import related
from hgpu.artifacts.store import load
from hgpu.report.html.render import html_report

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs chromium")

PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
DESK = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
OUTSIDE = """[...document.querySelectorAll('body *')].filter(one => {
    const box = one.getBoundingClientRect();
    return box.width && box.right > innerWidth + 1 && !one.closest('.scroll') && !one.closest('.skip')
        && !one.closest('svg');
}).map(one => one.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write a page of every kind that draws something, and one of a kind that doesn't."""
    root = tmp_path_factory.mktemp("store")
    plan = saved_plan(root)
    drawn = [plan, saved_simulation(root, plan), saved_load(root)]
    drawn += [load(GOLDEN / name) for name in ("profile.v2", "latency.v2", "deployment.v2")]
    made = {}
    for artifact in drawn:
        made[artifact.manifest.kind] = root / f"{artifact.manifest.kind}.html"
        made[artifact.manifest.kind].write_text(html_report(artifact, related(root, artifact)))
    return made


def check_quiet(page: Tab, path: Path) -> None:
    """Nothing was said on the console, nothing was thrown, and nothing but the page was asked for."""
    assert page.told("Runtime.consoleAPICalled", "Runtime.exceptionThrown") == []
    assert page.told("Log.entryAdded") == []
    asked = {event["request"]["url"] for event in page.told("Network.requestWillBeSent")}
    assert asked == {path.resolve().as_uri()}


def test_every_page_is_quiet_and_fits_on_desk_and_phone(pages: dict[str, Path]) -> None:
    async def look() -> None:
        async with tab() as page:
            for path in pages.values():
                for screen in (DESK, PHONE):
                    await page.ask("Emulation.setDeviceMetricsOverride", **screen)
                    await page.show(path)
                    assert await page.value("innerWidth") == screen["width"], path
                    assert await page.value(OVERFLOW) <= 0, path
                    assert await page.value(OUTSIDE) == [], path
                    check_quiet(page, path)

    asyncio.run(look())


def test_a_page_that_loads_something_would_be_noticed(tmp_path: Path) -> None:
    loud = tmp_path / "loud.html"
    loud.write_text("<!doctype html><p style='width: 900px'>wide</p><img src='missing.png'>")

    async def look() -> None:
        async with tab() as page:
            await page.ask("Emulation.setDeviceMetricsOverride", **PHONE | {"mobile": False})
            await page.show(loud)
            assert await page.value(OVERFLOW) > 0
            with pytest.raises(AssertionError):
                check_quiet(page, loud)

    asyncio.run(look())


@pytest.mark.parametrize(("scheme", "paper", "ink"), [("light", 255, 27), ("dark", 15, 230)])
def test_page_and_drawings_follow_the_colour_scheme(
    pages: dict[str, Path], scheme: str, paper: int, ink: int
) -> None:
    red = "parseInt(getComputedStyle(document.querySelector('{}')).{}.match(/\\d+/)[0])"

    async def look() -> None:
        async with tab() as page:
            feature = {"name": "prefers-color-scheme", "value": scheme}
            await page.ask("Emulation.setEmulatedMedia", features=[feature])
            await page.show(pages["plan"])
            assert await page.value(red.format("body", "backgroundColor")) == paper
            assert await page.value(red.format("svg text[style*=ink]", "fill")) == ink

    asyncio.run(look())


def test_the_keyboard_reaches_content_and_data(pages: dict[str, Path]) -> None:
    async def look() -> None:
        async with tab() as page:
            await page.show(pages["plan"])
            await page.press("Tab")
            assert await page.value("document.activeElement.className") == "skip"
            assert await page.value("document.activeElement.getBoundingClientRect().left") >= 0
            await page.press("Enter")
            assert await page.value("document.activeElement.id") == "content"
            await page.press("Tab")
            assert await page.value("document.activeElement.tagName") == "SUMMARY"
            outline = await page.value("getComputedStyle(document.activeElement).outlineStyle")
            assert outline == "solid"
            await page.press("Enter")
            assert await page.value("document.activeElement.parentElement.open") is True

    asyncio.run(look())


def test_related_pages_link_to_each_other(hgpu: Run, tmp_path: Path) -> None:
    root = tmp_path / "results"
    plan = saved_plan(root)
    simulation = saved_simulation(root, plan)
    done = hgpu("report", plan.short, "--out", "plan.html", "--open-related")
    assert done.returncode == 0, done.stderr

    async def look() -> None:
        async with tab() as page:
            await page.show(tmp_path / "plan.html")
            link = await page.value("document.querySelector('.lineage a[href^=simulation]').href")
            await page.show(tmp_path / link.rsplit("/", 1)[1])
            assert await page.value("document.querySelector('.kind code').textContent") == simulation.short
            assert (
                await page.value("document.querySelector('.lineage li li a').getAttribute('href')")
                == "plan.html"
            )

    asyncio.run(look())
