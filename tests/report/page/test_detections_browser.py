"""The gallery of a detection run in a real browser: slider, switches, order, one image enlarged, hostile names."""

from __future__ import annotations

import re

import pytest

from bbframe.report.detection_errors import OUTCOMES, detection_errors
from bbframe.report.page.detection_gallery import errors_per_image
from bbframe.report.page.detection_sections import sections_of_images
from bbframe.report.page.html_page import write_page
from tests.data.helpers import build
from tests.report.page.chromium import launched, needs_chromium, opened
from tests.report.page.made_detections import made_detections

pytestmark = pytest.mark.browser

SCENES = {"train_scenes": 10, "val_scenes": 10, "test_scenes": 40}
BREAK = "<script>window.broken=1</script><img src=x onerror=window.broken=1>"
HOSTILE = [BREAK, "\"'><svg onload=window.broken=1>", "\u202egnp\u2028 \u05d0\u05d1\u05d2 \U0001f408 {{ 7 * 7 }}"]


@pytest.fixture(scope="module")
def browser():
    needs_chromium()
    with launched() as found:
        yield found


@pytest.fixture(scope="module")
def data():
    return build("digit_scenes", masks=True, **SCENES)


@pytest.fixture(scope="module")
def rows(data):
    return made_detections(data)


@pytest.fixture(scope="module")
def errors(rows):
    return detection_errors([row[1:] for row in rows], 10)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory, data, rows):
    file = tmp_path_factory.mktemp("detections") / "report.html"
    write_page(file, "Digits", sections_of_images(rows, data))
    return file


def slide(page, percent):
    """Move the slider, and wait until the images are drawn again."""
    page.locator("input[type=range]").fill(str(percent))
    page.get_by_text(f"{percent / 100:.2f}", exact=True).wait_for()


def boxes(page, dashed=False):
    """How many boxes are drawn: solid ones of detections, or dashed ones of objects."""
    return page.locator(
        ".pictures rect[stroke-dasharray='5 4']" if dashed else ".pictures rect[stroke-dasharray='']"
    ).count()


@pytest.mark.long
def test_the_slider_counts_and_draws_what_is_left(browser, page_file, errors):
    with opened(browser, page_file) as page:
        for percent in (50, 90, 5):
            slide(page, percent)
            expected = errors.counts(percent / 100)
            counts = [int(text) for text in page.locator(".outcomes .count").all_inner_texts()]
            assert counts == [expected[kind] for kind in (*OUTCOMES[:-1], "missed")]
            while page.locator(".more:visible").count():
                page.locator(".more").click()
            assert page.locator(".pictures figure").count() == 40
            assert boxes(page) == sum(counts[:-1])
        found = int((errors.found >= 0.05).sum())
        recall = page.locator(".kind-detections .summary").inner_text()
        assert f"{100 * found / len(errors.found):.1f} % of the objects are found" in recall


@pytest.mark.long
def test_the_slider_is_moved_by_the_keyboard(browser, page_file, errors):
    with opened(browser, page_file) as page:
        slider = page.get_by_label("Score at least")
        start = errors.best_threshold()
        assert page.locator("output").inner_text() == f"{start:.2f}"
        slider.press("ArrowRight")
        page.get_by_text(f"{start + 0.01:.2f}", exact=True).wait_for()
        slider.press("End")
        page.get_by_text("1.00", exact=True).wait_for()
        assert boxes(page) == 0


@pytest.mark.long
def test_images_are_ordered_by_the_errors_that_are_left(browser, page_file, errors):
    with opened(browser, page_file) as page:

        def totals():
            texts = page.locator(".pictures figcaption").all_inner_texts()
            parts = [
                re.findall(r"(\d+) (right|wrong class|badly placed|both|duplicate|background|missed)", t)
                for t in texts
            ]
            return [sum(int(count) for count, kind in part if kind != "right") for part in parts]

        assert totals() == sorted(errors_per_image(errors, 40, errors.best_threshold()), reverse=True)[:24]
        for kind in ("wrong class", "badly placed", "both", "duplicate", "background"):
            page.locator(".outcomes").get_by_role("button", name=kind).click()
        alone = totals()
        assert alone == sorted(alone, reverse=True)
        assert alone[0] > 0
        assert page.locator(".pictures figcaption", has_text="background").count() == 0
        page.get_by_label("Order").select_option("name")
        names = page.locator(".pictures .file").all_inner_texts()
        assert names == [f"test scene {i}" for i in range(24)]


@pytest.mark.long
@pytest.mark.parametrize("press", ["click", "Space"])
def test_switches_hide_what_they_name(browser, page_file, press):
    with opened(browser, page_file) as page:
        slide(page, 30)

        def switch(group, name):
            button = page.locator(group).get_by_role("button", name=name, exact=False).first
            button.click() if press == "click" else button.press(press)
            return button.get_attribute("aria-pressed")

        before, right = boxes(page), page.locator(".pictures rect[stroke='#1cc88a']").count()
        assert right > 0
        assert switch(".outcomes", "right") == "false"
        assert page.locator(".pictures rect[stroke='#1cc88a']").count() == 0
        assert switch(".outcomes", "right") == "true"
        assert boxes(page) == before
        assert page.locator(".pictures text").count() > 0
        switch(".layers", "labels")
        assert page.locator(".pictures text").count() == 0
        assert page.locator(".pictures path").count() > 0
        switch(".layers", "masks")
        assert page.locator(".pictures path").count() == 0
        assert boxes(page, dashed=True) > 0
        switch(".layers", "true boxes")
        assert boxes(page, dashed=True) == 0


@pytest.mark.long
def test_classes_are_switched_alone_and_all_at_once(browser, page_file, errors):
    with opened(browser, page_file) as page:
        slide(page, 50)
        page.get_by_text("Classes", exact=True).click()
        classes = page.locator(".classes")
        classes.get_by_role("button", name="None").click()
        assert [int(text) for text in page.locator(".outcomes .count").all_inner_texts()] == [0] * 7
        assert boxes(page) == 0
        classes.get_by_role("button", name="3", exact=True).click()
        sure = errors.matches.scores >= 0.5
        own = ((errors.matches.labels == 3) & sure & (errors.outcome == 0)).sum()
        assert int(page.locator(".outcomes .count").first.inner_text()) == own > 0
        classes.get_by_role("button", name="All").click()
        assert int(page.locator(".outcomes .count").first.inner_text()) == errors.counts(0.5)["right"]


@pytest.mark.long
def test_an_image_is_enlarged_and_left_by_the_keyboard(browser, page_file):
    with opened(browser, page_file) as page:
        page.locator(".pictures .open").first.press("Enter")
        dialog = page.get_by_role("dialog")
        title = dialog.locator(".title")
        first = title.inner_text()
        assert first == page.locator(".pictures .file").first.inner_text()
        assert dialog.locator("image").get_attribute("href").startswith("data:image/")
        assert dialog.locator("li").count() > 0
        page.keyboard.press("ArrowRight")
        assert title.inner_text() == page.locator(".pictures .file").nth(1).inner_text()
        page.keyboard.press("ArrowLeft")
        assert title.inner_text() == first
        page.keyboard.press("Escape")
        assert page.locator("dialog[open]").count() == 0


@pytest.mark.long
@pytest.mark.parametrize("width", [390, 1280])
def test_the_gallery_is_as_wide_as_the_screen(browser, page_file, width):
    with opened(browser, page_file, width=width, scheme="dark") as page:
        page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true })")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.locator(".pictures .open").first.click()
        box = page.get_by_role("dialog").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width


@pytest.mark.long
def test_hostile_names_break_nothing_and_run_nothing(browser, tmp_path, data, rows, monkeypatch):
    monkeypatch.setattr(data, "class_names", [f"{HOSTILE[k % 3]}{k}" for k in range(10)])
    monkeypatch.setattr(data, "source", lambda part, index: f"{HOSTILE[index % 3]}{index}.png")
    monkeypatch.setattr(data.parts["test"], "read", lambda index: 1 / 0)  # the reason is shown too
    write_page(tmp_path / "report.html", BREAK, sections_of_images(rows, data))
    with opened(browser, tmp_path / "report.html") as page:
        slide(page, 20)
        page.get_by_text("Classes", exact=True).click()
        page.locator(".pictures .open").first.click()
        assert "no photo: division by zero" in page.locator(".pictures figcaption").first.inner_text()
        page.keyboard.press("Escape")
        assert page.evaluate("window.broken") is None
        assert page.locator("main script:not([type='application/json']), main img").count() == 0
        assert page.locator("main svg[onload]").count() == 0
        shown = page.locator("body").inner_text()
        assert BREAK in shown
        assert "{{ 7 * 7 }}" in shown
        assert "\u202e" not in shown
