"""The page in a real browser: every chart is drawn, there is no error, and nothing is asked for."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from solversearch.report.page import write_page
from tests.report.chromium import CHROMIUM, DRIVER, opened, started

pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    pytest.importorskip("selenium")
    driver = started(tmp_path_factory.mktemp("browser"))
    yield driver
    driver.quit()


def requests(browser: Any) -> set[str]:
    """What the page has asked for, as a place."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return {
        each["request"]["url"]
        for each in asked
        if each["documentURL"].startswith("file:") and not each["request"]["url"].startswith("data:")
    }


@pytest.fixture(scope="module")
def page(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(run, tmp_path_factory.mktemp("page") / "report.html")


def test_the_page_opens_without_an_error_or_a_request(browser: Any, page: Path) -> None:
    browser.get_log("performance")
    for width in (1400, 400):
        for scheme in ("light", "dark"):
            opened(browser, page, width, scheme)
    assert browser.get_log("browser") == []
    assert requests(browser) == {page.as_uri()}


def test_the_library_is_unpacked_as_it_was(browser: Any, page: Path) -> None:
    from plotly.offline import get_plotlyjs

    opened(browser, page, 1400, "light")
    assert browser.execute_script("return [...document.scripts].at(-1).textContent") == get_plotlyjs()
    assert browser.execute_script("return document.getElementById('library').textContent.length") < 2 * 10**6


@pytest.mark.parametrize("width", [400, 1400])
def test_every_chart_is_drawn_as_it_was_meant(browser: Any, page: Path, width: int) -> None:
    opened(browser, page, width, "light")
    boxes = browser.execute_script(
        "return [...document.querySelectorAll('.chart')].map(c => [c.querySelectorAll('.trace, .scatterlayer path, .bars path').length,"
        " c.getBoundingClientRect().width, c.querySelector('svg.main-svg').getBoundingClientRect().width])"
    )
    assert len(boxes) == 8
    for drawn, room, taken in boxes:
        assert drawn > 0 and 200 < taken <= room + 1 <= width
    wrong = browser.execute_script(  # Plotly.validate knows no legends
        "return JSON.parse(document.getElementById('figures').textContent).flatMap(({data, layout: {legend, ...layout}}) =>"
        " Plotly.validate(data, layout) || []).filter(finding => finding.code !== 'unused').map(finding => finding.msg)"
    )
    assert wrong == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width, "tables scroll inside their own boxes"


CONTRASTS = """
const painted = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
const mixed = (...layers) => {  // as the browser itself paints them, one over the other
  painted.clearRect(0, 0, 1, 1);
  for (const layer of layers) { painted.fillStyle = layer; painted.fillRect(0, 0, 1, 1); }
  return [...painted.getImageData(0, 0, 1, 1).data].slice(0, 3);
};
const luminance = rgb => rgb.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const found = [];
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
  if (!own || element.closest("script, style, noscript") || !element.getClientRects().length) continue;
  const behind = [];
  for (let place = element; place; place = place.parentElement) behind.unshift(getComputedStyle(place).backgroundColor);
  const style = getComputedStyle(element), ink = element instanceof SVGElement ? style.fill : style.color;
  const [paper, text] = [mixed(...behind), mixed(...behind, ink)].map(luminance);
  const ratio = (Math.max(paper, text) + 0.05) / (Math.min(paper, text) + 0.05);
  found.push([ratio, element.textContent.trim().slice(0, 40), element.tagName]);
}
return found;
"""
"""The contrast of every text with what lies behind it (WCAG 2.2)."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(browser: Any, page: Path, scheme: str) -> None:
    opened(browser, page, 1400, scheme)
    found = browser.execute_script(CONTRASTS)
    assert {"TD", "TH", "DT", "DD", "CODE", "FIGCAPTION", "P", "A", "text", "H1", "BUTTON"} <= {tag for *_, tag in found}
    assert len(found) > 300 and not [each for each in found if each[0] < 4.5]
    assert 12 < max(ratio for ratio, *_ in found) <= 21


def test_captions_stay_in_view_on_a_narrow_screen(browser: Any, page: Path) -> None:
    """Also where the table below them is moved to its end."""
    opened(browser, page, 400, "light")
    browser.execute_script("document.querySelectorAll('.scroll').forEach(box => box.scrollLeft = 10000)")
    boxes = browser.execute_script(
        "return [...document.querySelectorAll('figcaption, .note, h2, .xtitle, .bartext')].map(c => c.getBoundingClientRect())"
        ".map(box => [box.left, box.right])"
    )
    assert len(boxes) > 20 and not [box for box in boxes if box[0] < 0 or box[1] > 400]
    assert browser.execute_script("return [...document.querySelectorAll('table caption')].length") == 0


def test_dark_pages_are_dark_and_turn_light_again(browser: Any, page: Path) -> None:
    ink = "return [getComputedStyle(document.body).backgroundColor, document.querySelector('.xtitle').style.fill]"
    opened(browser, page, 1400, "dark")
    dark = browser.execute_script(ink)
    assert dark == ["rgb(20, 23, 26)", "rgb(230, 232, 234)"]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "light"}]})
    time.sleep(1)
    assert browser.execute_script(ink) == ["rgb(255, 255, 255)", "rgb(36, 41, 47)"]


def test_a_click_sorts_a_table_below_its_first_row(browser: Any, page: Path) -> None:
    opened(browser, page, 1400, "light")
    column = "return [...document.querySelector('.sortable').tBodies[0].rows].map(r => Number(r.cells[1].dataset.value))"
    before = browser.execute_script(column)
    click = "document.querySelectorAll('.sortable th button')[1].click()"
    browser.execute_script(click)
    browser.execute_script(click)
    after = browser.execute_script(column)
    assert after == [before[0], *sorted(before[1:], reverse=True)]


def test_text_from_a_file_that_was_not_escaped_could_not_run(browser: Any, page: Path, tmp_path: Path) -> None:
    """The policy in the head holds where all else has failed."""
    broken = tmp_path / "broken.html"
    broken.write_text(page.read_text(encoding="utf-8").replace("<main>", "<main><script>document.title='taken'</script>"), encoding="utf-8")
    browser.get_log("browser")
    opened(browser, broken, 1400, "light")
    assert browser.title != "taken"
    assert any("Content Security Policy" in entry["message"] for entry in browser.get_log("browser"))
