"""The report in a real browser, as a person uses it."""

import base64
import io
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.report.conftest import CLASSES, RUN_NAME

CHROMIUM = shutil.which("chromium")
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")]
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")


@pytest.fixture(scope="module")
def browser():
    # Chromium's own sandbox refuses to run as root, which is usual in containers.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield chromium
        chromium.close()


class Tab:
    """A tab that records its errors."""

    def __init__(self, browser, **options):
        self.context = browser.new_context(
            **{"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce", **options}
        )
        self.errors, self.requests = [], []
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.errors.append(dialog.message), dialog.dismiss()))
        self.context.route("**/*", self._route)

    def _route(self, route):
        self.requests.append(route.request.url)
        if route.request.url.startswith("file:"):
            route.continue_()
        else:
            route.abort()


@pytest.fixture
def opened(browser, renamed):
    tab = Tab(browser)
    tab.page.goto(renamed.as_uri())
    tab.page.wait_for_selector("#parallel-chart svg")
    yield tab
    tab.context.close()
    assert tab.errors == []
    assert tab.requests == [renamed.as_uri()]


def _overlap(one, other):
    return all(
        one[start] < other[start] + other[size] and other[start] < one[start] + one[size]
        for start, size in (("x", "width"), ("y", "height"))
    )


def test_every_chart_is_drawn_and_no_title_of_an_axis_touches_a_number(opened):
    for chart in opened.page.locator(".chart").all():
        assert chart.locator("svg[role=img] path, svg[role=img] rect, svg[role=img] circle").count() > 0
        assert chart.locator("svg[role=img]").first.get_attribute("aria-label")
        texts = [(each.text_content(), each.bounding_box()) for each in chart.locator("svg[role=img] text").all()]
        for title in (box for text, box in texts if "→" in text or "↑" in text):
            assert not [text for text, box in texts if box is not title and _overlap(box, title)]


def test_names_are_shown_literally(opened):
    assert opened.page.locator("h1").inner_text() == RUN_NAME
    assert opened.page.title().startswith(RUN_NAME)
    headings = opened.page.locator(".matrix tbody th").all_text_contents()
    assert CLASSES[0] in headings
    assert opened.page.evaluate("document.querySelectorAll('main img, main script').length") == 0


def test_a_click_on_a_cell_shows_its_images(opened):
    button = opened.page.locator(".matrix button").first
    count = int(button.inner_text())
    button.focus()
    opened.page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "true"
    images = opened.page.locator("#cell-images svg.picture")
    assert images.count() == min(count, 24)
    label = images.first.get_attribute("aria-label")
    assert label.endswith(button.get_attribute("aria-label").rpartition(":")[0])
    # The picture is not an empty frame, because its pixels differ.
    assert len({*base64.b64encode(images.first.screenshot())}) > 30


def test_the_table_of_classes_sorts_both_ways_by_number_and_by_name(opened):
    table = opened.page.locator("#classes table")
    recall = table.locator("thead th[data-column=recall]")
    cells = f"tbody td:nth-child({recall.evaluate('heading => heading.cellIndex') + 1})"
    values = lambda: [float(cell.get_attribute("data-value")) for cell in table.locator(cells).all()]  # noqa: E731
    before = values()
    recall.locator("button").click()
    assert recall.get_attribute("aria-sort") == "descending"
    assert values() == sorted(before, reverse=True)
    recall.locator("button").click()
    assert recall.get_attribute("aria-sort") == "ascending"
    assert values() == sorted(before)


def test_the_slider_of_opacity_fades_the_maps(opened):
    fade = "getComputedStyle(document.querySelector('#errors .map')).opacity"
    assert opened.page.evaluate(fade) == "0.7"
    opened.page.locator("#opacity").fill("0")
    assert opened.page.evaluate(fade) == "0"
    assert opened.page.locator("#opacity-shown").inner_text() == "0 %"


def test_the_slider_of_epochs_shows_the_maps_of_each_epoch(opened):
    slider, shown = opened.page.get_by_role("slider", name="After epoch"), opened.page.locator("#watched-shown")
    maps = opened.page.locator("#watched .map svg")
    assert maps.count() == opened.page.locator("#watched figure").count() == 3
    assert shown.inner_text().startswith("2 of 2, ")
    seen = {2: maps.evaluate_all("maps => maps.map((map) => map.getAttribute('viewBox'))")}
    looks = lambda: np.asarray(Image.open(io.BytesIO(opened.page.locator(".watched").screenshot())).convert("L"), int)  # noqa: E731
    looks()  # scrolls there
    pictures = {2: looks()}
    slider.press("ArrowLeft")
    assert shown.inner_text().startswith("1 of 2, ") and slider.get_attribute("aria-valuetext") == "epoch 1"
    assert maps.first.get_attribute("aria-label").startswith("map after epoch 1 of ")
    seen[1] = maps.evaluate_all("maps => maps.map((map) => map.getAttribute('viewBox'))")
    assert len({*seen[1], *seen[2]}) == 6
    pictures[1] = looks()
    slider.press("End")
    again, moved = (np.abs(each - pictures[2]).mean() for each in (looks(), pictures[1]))
    assert moved > 1 and again < moved / 10


def test_one_cursor_reads_all_curves_by_keyboard_and_pointer(opened):
    slider, output = opened.page.locator("#epoch"), opened.page.locator("#at-epoch")
    slider.fill("2")
    slider.press("ArrowLeft")
    assert output.inner_text().startswith("1: ")
    places = opened.page.locator(".cursor-line").evaluate_all("lines => lines.map((line) => line.getAttribute('x1'))")
    assert len(places) == 3 and len(set(places)) == 1
    box = opened.page.locator("#loss-chart svg").bounding_box()
    opened.page.mouse.move(box["x"] + box["width"] - 55, box["y"] + 50)
    assert output.inner_text().startswith("2: ")


def test_filters_select_trials(opened):
    trials = opened.page.locator('table[data-source="sweep/study.csv"] tbody tr:visible')
    assert trials.count() == 3
    box = opened.page.locator("#filters fieldset", has_text="patch_size").locator("input").first
    box.uncheck()
    assert 0 < trials.count() < 3
    assert opened.page.locator("#filtered").inner_text() == f"{trials.count()} of 3 trials chosen."
    box.check()
    assert trials.count() == 3


def test_printed_charts_have_the_width_of_the_paper_and_nothing_is_cut(browser, renamed):
    tab = Tab(browser)
    tab.page.goto(renamed.as_uri())
    tab.page.wait_for_selector("#parallel-chart svg")
    width = "document.querySelector('#loss-chart svg').getAttribute('width')"
    on_screen = tab.page.evaluate(width)
    tab.page.evaluate(f"addEventListener('beforeprint', () => (window.onPaper = {width}))")
    assert tab.page.pdf(format="A4").startswith(b"%PDF")
    assert tab.page.evaluate("window.onPaper") == "680"
    tab.page.wait_for_function(f"{width} === '{on_screen}'")
    tab.page.set_viewport_size({"width": 690, "height": 900})
    tab.page.emulate_media(media="print")
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 690
    assert tab.page.locator("#sweep h3").first.evaluate("each => getComputedStyle(each).breakAfter") == "avoid"
    assert tab.page.locator("nav, summary, .on-screen").evaluate_all("all => all.every((each) => !each.offsetWidth)")
    tab.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_has_no_serious_accessibility_fault(browser, renamed, scheme):
    tab = Tab(browser, color_scheme=scheme)
    tab.page.goto(renamed.as_uri())
    tab.page.wait_for_selector("#parallel-chart svg")
    tab.page.locator(".matrix button").first.click()
    for summary in tab.page.locator("summary").all():
        summary.click()
    found = axe.Axe().run(tab.page).response["violations"]
    tab.context.close()
    serious = [
        (each["id"], each["nodes"][0]["html"], each["nodes"][0]["failureSummary"])
        for each in found
        if each["impact"] in ("serious", "critical")
    ]
    assert serious == []


@pytest.mark.parametrize("width", [360, 1280, 3840])
def test_the_page_fits_any_screen(browser, renamed, width):
    tab = Tab(browser, viewport={"width": width, "height": 900})
    tab.page.goto(renamed.as_uri())
    tab.page.wait_for_selector("#parallel-chart svg")
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
    tab.context.close()


def test_the_page_works_in_the_frame_of_mlflows_ui(browser, renamed, tmp_path):
    """The frame is an iframe with a blob that allows only scripts: no storage, no origin."""
    content = base64.b64encode(renamed.read_bytes()).decode()
    (tmp_path / "viewer.html").write_text(
        "<!doctype html><iframe sandbox='allow-scripts' style='width:1200px;height:800px'></iframe><script>"
        f"const bytes = Uint8Array.from(atob('{content}'), (c) => c.charCodeAt(0));"
        "document.querySelector('iframe').src = URL.createObjectURL(new Blob([bytes], {type: 'text/html'}));</script>"
    )
    tab = Tab(browser)
    tab.page.goto((tmp_path / "viewer.html").as_uri())
    frame = tab.page.frame_locator("iframe")
    frame.locator("#parallel-chart svg").wait_for()
    frame.locator(".matrix button").first.click()
    assert frame.locator("#cell-images svg.picture").count() > 0
    frame.locator("nav a", has_text="Sweep").click()
    assert 0 <= frame.locator("#sweep").bounding_box()["y"] < 300
    assert tab.errors == []
    tab.context.close()
