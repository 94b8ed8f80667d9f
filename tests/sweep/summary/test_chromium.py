"""The page in a real browser: nothing on its console, and no wider than the window, on a desk and on a phone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import escape
from pathlib import Path

import pytest

from microstep.sweep.summary.write import write_summary
from tests.sweep.summary.sweeps import plant_run, plant_sweep

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0", "--window-size=1400,2000")
pytestmark = pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="there is no Chromium here")
WIDTHS = (1280, 400)
MEASURE = """
const found = {};
for (const frame of document.querySelectorAll('iframe')) {
  const page = frame.contentDocument, root = page.documentElement, letters = [];
  for (const text of page.querySelectorAll('svg text')) {
    const svg = text.ownerSVGElement;
    const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
    letters.push(parseFloat(getComputedStyle(text).fontSize) * scale);
  }
  found[frame.width] = {window: root.clientWidth, page: root.scrollWidth, letters: Math.min(...letters),
    pictures: page.querySelectorAll('svg').length, style: getComputedStyle(page.querySelector('h1')).fontSize};
}
document.body.innerHTML = '<pre>' + JSON.stringify(found) + '</pre>';
"""


def browse(page: str, home: Path) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Show a page in windows of both widths; return what was measured, and what the console said."""
    frames = "".join(f'<iframe width="{width}" height="900" srcdoc="{escape(page)}"></iframe>' for width in WIDTHS)
    harness = home / "harness.html"
    harness.write_text(f"<!DOCTYPE html><body>{frames}<script>onload = () => {{{MEASURE}}}</script>", encoding="utf-8")
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={home / 'profile'}", "--dump-dom", harness.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    measured = re.search(r"<pre>(.*?)</pre>", done.stdout)
    assert measured, done.stderr
    return json.loads(measured[1]), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The summary of a sweep with long names, long errors and a failure."""
    name, reason = "a_long_name_of_an_option_that_goes_on" * 2, "it_breaks_nowhere" * 20
    grid = {"model": [f"{name}_{n}" for n in range(4)], "seed": [0, 1]}
    directory = plant_sweep(tmp_path_factory.mktemp("chromium") / ("s" * 80), grid, lambda v: 0.9)
    plant_run(next(run for run in sorted(directory.iterdir()) if run.is_dir()), {"status": "failed", "error": reason})
    write_summary(directory)
    return (directory / "summary.html").read_text(encoding="utf-8")


def test_it_is_quiet_and_fits_on_a_desk_and_on_a_phone(page, tmp_path):
    """No word on the console; no scrolling sideways at 1280 and at 400 pixels; no letter of a chart below 9."""
    found, console = browse(page, tmp_path)
    assert console == []
    for width in map(str, WIDTHS):
        assert found[width]["page"] <= found[width]["window"] <= int(width)
        assert found[width]["pictures"] == 6
        assert found[width]["letters"] >= 9
    assert (found["1280"]["style"], found["400"]["style"]) == ("34px", "27px")


@pytest.mark.parametrize(
    ("planted", "width"),
    [
        ("<script>console.error('x')</script>", 0),
        ('<img src="http://127.0.0.1:9/x.png">', 0),
        ('<p style="width:900px">wide</p>', 400),
        ('<svg viewBox="0 0 1000 9"><text style="font-size: 10px">x</text></svg>', 400),
    ],
    ids=["script", "outside address", "wide", "small letters"],
)
def test_what_is_wrong_with_a_page_is_seen(page, tmp_path, planted, width):
    """The test above would notice: a script or an outside address, which the page's policy refuses, and a wide page."""
    found, console = browse(page.replace("</main>", f"{planted}</main>"), tmp_path)
    assert console if not width else found[str(width)]["page"] > width or found[str(width)]["letters"] < 9
