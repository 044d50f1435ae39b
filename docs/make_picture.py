"""Draws docs/report.png, the README's picture of the report, from a real run.

    python docs/make_picture.py runs/demo-3fa9c1d2

Needs Chromium and the playwright package (both stand in the dev extra and in CONTRIBUTING). The picture is the top
of the page: the verdict, the score against its baselines, and the loss curve.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from danlu.base.runfolder import RunFolder
from danlu.stages.report import report

WIDTH, SCALE = 1280, 1.25
"""CSS pixels, and device pixels for each."""


def main() -> None:
    """Make the report anew and photograph it down to the small charts."""
    chromium = next((found for name in ("chromium", "google-chrome") if (found := shutil.which(name))), None)
    if len(sys.argv) != 2 or chromium is None:
        sys.exit("Usage: python docs/make_picture.py RUN   (needs chromium on the PATH)")
    page_file = report(RunFolder.open(sys.argv[1]))
    target = Path(__file__).with_name("report.png")
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 900}, device_scale_factor=SCALE)
        page.goto(page_file.resolve().as_uri())
        page.wait_for_timeout(300)
        end = page.evaluate(
            "document.querySelector('#learning .small-charts').getBoundingClientRect().bottom + scrollY"
        )
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": end}
        page.screenshot(path=str(target), full_page=True, clip=clip)
        browser.close()
    print(f"{target}: {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
