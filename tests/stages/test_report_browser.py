"""The report in headless Chromium: silent, offline, in frame on a phone, alive under pointer and keyboard."""

from __future__ import annotations

import shutil
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_run import write_run

from danlu.base.runfolder import RunFolder
from danlu.stages.report import report

pytestmark = pytest.mark.browser
CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
SIZES = {"desktop": (1280, 900, "light"), "phone": (360, 780, "light"), "dark": (1280, 900, "dark")}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the playwright package")
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with playwright.sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Reports of a finished, a hostile, a young and an untrained run."""
    wanted: dict[str, dict[str, Any]] = {
        "finished": {},
        "hostile": {"hostile": True, "n_steps": 60},
        "young": {"n_steps": 3, "parts": "recipe data plan train"},
        "untrained": {"parts": "recipe"},
    }
    root = tmp_path_factory.mktemp("runs")
    return {name: report(RunFolder(write_run(root / name, **how))) for name, how in wanted.items()}


TOO_WIDE = """() => [...document.querySelectorAll("body *")]
  .filter((e) => !e.closest("svg") && e.getBoundingClientRect().right > innerWidth + 1)
  .map((e) => e.className || e.tagName)"""


class Open:
    """A page, with all that it complained of or asked the network for."""

    def __init__(self, browser: Any, path: Path, size: str = "desktop") -> None:
        width, height, scheme = SIZES[size]
        self.context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_timeout(150)

    def __enter__(self) -> Open:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def readout(self, chart: str = "loss") -> str:
        return str(self.page.locator(f'[data-chart="{chart}"] .readout').inner_text())


def colours(png: bytes) -> int:
    """Distinct bytes in a PNG's pixels: 1 or 2 for a blank page."""
    at, data = 8, b""
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        if png[at + 4 : at + 8] == b"IDAT":
            data += png[at + 8 : at + 8 + length]
        at += 12 + length
    return len(set(zlib.decompress(data)))


@pytest.mark.parametrize("run", ["finished", "hostile", "young", "untrained"])
@pytest.mark.parametrize("size", list(SIZES))
def test_the_page_is_silent_offline_and_in_frame(
    browser: Any, pages: dict[str, Path], tmp_path: Path, run: str, size: str
) -> None:
    with Open(browser, pages[run], size) as it:
        assert it.complaints == []
        assert [url for url in it.requests if not url.startswith(("file:", "data:"))] == []
        assert sum(url.startswith("file:") for url in it.requests) == 1
        assert it.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        assert it.page.evaluate(TOO_WIDE) == []
        shot = it.page.screenshot(path=str(tmp_path / f"{run}-{size}.png"), full_page=True)
        assert colours(shot) > 40


def test_every_chart_is_drawn(browser: Any, pages: dict[str, Path]) -> None:
    with Open(browser, pages["finished"]) as it:
        names = it.page.eval_on_selector_all("[data-chart]", "list => list.map(e => e.dataset.chart)")
        assert names == ["loss", "lr", "norm", "per_s", "map:grad_norm", "map:update_ratio", "map:dead_frac", "times"]
        for name in names:
            chart = it.page.locator(f'[data-chart="{name}"] svg')
            assert len(chart.get_attribute("aria-label")) > 30
            assert chart.locator("path, image").count() > 0
            assert "NaN" not in chart.inner_html()


def test_the_pointer_moves_one_crosshair_on_every_chart(browser: Any, pages: dict[str, Path]) -> None:
    with Open(browser, pages["finished"]) as it:
        before = it.readout()
        assert "step 2,381" in before
        it.page.locator('[data-chart="loss"] svg').scroll_into_view_if_needed()
        place = it.page.locator('[data-chart="loss"] svg').bounding_box()
        it.page.mouse.move(place["x"] + place["width"] * 0.5, place["y"] + 100)
        it.page.wait_for_timeout(80)
        middle = it.readout()
        step = int(middle.split("step ")[1].split(" ")[0].replace(",", ""))
        assert 1050 < step < 1330  # the axis has a margin at its left
        assert "validation" in middle
        assert it.readout("times").startswith(f"step {step:,}")
        assert it.page.locator('[data-chart="lr"] .hair').get_attribute("visibility") == "visible"
        it.page.mouse.move(5, 5)
        it.page.wait_for_timeout(80)
        assert it.readout() == before


def test_the_keyboard_moves_the_crosshair(browser: Any, pages: dict[str, Path]) -> None:
    with Open(browser, pages["finished"]) as it:
        it.page.locator('[data-chart="loss"] svg').focus()
        it.page.keyboard.press("Home")
        it.page.wait_for_timeout(80)
        assert it.readout().startswith("step 1 ")
        it.page.keyboard.press("ArrowRight")
        it.page.wait_for_timeout(80)
        assert not it.readout().startswith("step 1 ")


def test_the_switches_change_the_axis(browser: Any, pages: dict[str, Path]) -> None:
    with Open(browser, pages["finished"]) as it:
        axis = '[data-chart="loss"] svg > text'
        ticks = lambda: it.page.locator(axis).all_text_contents()  # noqa: E731
        assert "2000" in ticks()
        it.page.click("#log-x")
        assert {"1", "10", "100", "1000"} <= set(ticks())
        assert it.page.get_attribute("#log-x", "aria-pressed") == "true"
        it.page.click("#log-x")
        it.page.click("#by-time")
        assert any("min" in tick for tick in ticks())
        assert it.complaints == []


def test_the_theme_follows_the_system_and_the_button(browser: Any, pages: dict[str, Path]) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    with Open(browser, pages["finished"], "dark") as it:
        dark = it.page.evaluate(colour)
        it.page.click("#theme")
        light = it.page.evaluate(colour)
        assert dark != light
        for scheme in ("light", "dark"):
            it.page.emulate_media(color_scheme=scheme)
            it.page.wait_for_timeout(100)  # the page hears of it with the next frame
        assert it.page.evaluate(colour) == dark
    with Open(browser, pages["finished"]) as it:
        assert it.page.evaluate(colour) == light


CONTRAST = """() => {
  const rgb = (text) => text.match(/[0-9.]+/g).map(Number);
  const linear = (c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;  // WCAG 2, relative luminance
  const bright = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const under = (e) => {
    const c = rgb(getComputedStyle(e).backgroundColor);
    return c.length < 4 || c[3] > 0 ? c : under(e.parentElement);
  };
  const says = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) && e.offsetParent;
  const weak = [];
  for (const e of document.querySelectorAll("body *")) {
    if (e.closest("svg, script") || !says(e)) continue;
    const [a, b] = [bright(rgb(getComputedStyle(e).color)), bright(under(e))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) weak.push(e.tagName + "." + e.className + " " + e.textContent.slice(0, 30));
  }
  return weak;
}"""


@pytest.mark.parametrize("size", ["desktop", "dark"])
def test_every_text_has_a_contrast_of_at_least_4_5(browser: Any, pages: dict[str, Path], size: str) -> None:
    with Open(browser, pages["finished"], size) as it:
        assert it.page.evaluate(CONTRAST) == []


def test_settings_can_be_found_and_sifted(browser: Any, pages: dict[str, Path]) -> None:
    with Open(browser, pages["finished"]) as it:
        shown = lambda: it.page.locator(".settings .group > dl > div:visible").count()  # noqa: E731
        every = shown()
        it.page.click("#only-given")
        assert 0 < shown() < every
        assert it.page.inner_text("#found") == f"{shown()} of {every}"
        it.page.click("#only-given")
        it.page.fill("#find", "weight_decay")
        assert shown() >= 1
        it.page.fill("#find", "no such thing")
        assert shown() == 0


def test_it_prints(browser: Any, pages: dict[str, Path], tmp_path: Path) -> None:
    with Open(browser, pages["finished"], "dark") as it:
        it.page.emulate_media(media="print")
        assert it.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert it.page.locator("#theme").is_hidden()
        it.page.pdf(path=str(tmp_path / "report.pdf"), format="A4")
        assert (tmp_path / "report.pdf").stat().st_size > 50_000


def test_without_scripts_the_verdict_scores_and_settings_are_there(browser: Any, pages: dict[str, Path]) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(pages["finished"].as_uri())
    text = page.inner_text("body")
    context.close()
    for expected in ("0.270 below the best baseline", "5-gram", "near-duplicate", "How long to train"):
        assert expected in text
