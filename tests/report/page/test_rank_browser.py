"""The page of a ranking in a real browser: the picture of the stages, the map, and names that cannot break it."""

from __future__ import annotations

import pytest

from bbframe.report.page.rank_page import write_rank_page
from tests.report.made_ranking import made_map, made_ranking
from tests.report.page.chromium import launched, needs_chromium, opened

pytestmark = pytest.mark.browser

BREAK = "<script>window.broken=1</script><img src=x onerror=window.broken=1>\"' \u202e\u05d0\u05d1 \U0001f408"
CHART = "Chart.getChart(document.querySelector('{} figure canvas'))"


@pytest.fixture(scope="module")
def browser():
    needs_chromium()
    with launched() as found:
        yield found


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    return write_rank_page(tmp_path_factory.mktemp("rank"), made_ranking(), made_map(800))


@pytest.fixture(scope="module")
def hostile_file(tmp_path_factory):
    ranking = made_ranking(5, detection=True)
    for one in ranking["backbones"]:
        one["name"] += BREAK
        one["stages"][0]["name"] = BREAK
    ranking |= {"data": BREAK, "class_names": [BREAK] * 10, "notes": [BREAK], "command": BREAK}
    ranking["failed"] = [{"name": BREAK, "reason": BREAK}]
    ranking["race"]["winner"] = BREAK
    found = {**made_map(100), "names": [BREAK] * 100, "backbone": BREAK}
    return write_rank_page(tmp_path_factory.mktemp("hostile"), ranking, found)


def texts(page, selector):
    return [text.strip() for text in page.locator(selector).all_inner_texts()]


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_as_wide_as_the_screen_with_all_its_charts(browser, page_file, width, scheme):
    with opened(browser, page_file, width, scheme) as page:
        drawn = page.evaluate("[...document.querySelectorAll('canvas[role=img]')].map(c => !!Chart.getChart(c))")
        assert drawn == [True] * 4
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        wide = page.evaluate(
            "[...document.querySelectorAll('.cells button')].filter(b => b.scrollWidth > b.clientWidth + 1).length"
        )
        assert wide == 0  # every number has room in its cell


@pytest.mark.long
@pytest.mark.parametrize("width", [390, 1280])
def test_hostile_names_break_nothing(browser, hostile_file, width):
    with opened(browser, hostile_file, width) as page:
        page.locator(".cells button").first.click()
        assert "window.broken=1" in page.locator(".kind-stage_scores .cell").inner_text()
        page.locator(".classes button").first.hover()
        assert page.evaluate("window.broken") is None
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.long
def test_another_score_changes_cells_chart_and_words(browser, page_file):
    with opened(browser, page_file) as page:
        stages = page.locator("#part-stages")
        cells = "#part-stages .stage-row:first-child .cells button"
        before = texts(page, cells)
        assert before[0].startswith("0.763")
        stages.locator("[name=score]").select_option(label="LogME")
        assert texts(page, cells)[0].startswith("0.845")
        assert stages.locator(".meaning").inner_text() == "Score by stage: LogME, log evidence a sample"
        first = CHART.format("#part-stages") + ".data.datasets[0]"
        assert page.evaluate(f"{first}.data[0].y") == pytest.approx(0.845, abs=1e-3)
        assert page.evaluate(f"{first}.ends[0]") is None  # LogME has no interval


@pytest.mark.long
def test_the_chosen_stages_are_framed_and_the_best_have_the_strongest_colour(browser, page_file):
    with opened(browser, page_file) as page:
        row = page.locator(".stage-row").first
        assert row.locator("button.chosen").all_inner_texts()[0].startswith("0.883 stage2 · /8")
        shares = page.evaluate(
            "[...document.querySelector('.stage-row').querySelectorAll('.cells button')]"
            ".map(b => Number(b.style.getPropertyValue('--share')))"
        )
        assert shares == sorted(shares)
        assert shares[-1] > 0.9
        row.locator(".cells button").nth(1).hover()
        said = page.locator(".kind-stage_scores .cell").inner_text()
        assert said == "convnextv2_nano, stage2 (stride 8, 192 channels): ridge 0.883 [0.872, 0.894], chosen"


@pytest.mark.long
@pytest.mark.parametrize("press", ["click", "Enter"])
def test_a_name_puts_its_row_into_the_chart_and_out_of_it(browser, page_file, press):
    with opened(browser, page_file) as page:
        chart = CHART.format("#part-stages") + ".data.datasets.map(set => set.label)"
        near = ["convnextv2_nano", "dinov2_small", "dinov2_small, class token", "swinv2_tiny", "focalnet_tiny"]
        assert page.evaluate(chart) == near
        name = page.locator(".stage-row .name", has_text="resnet_18")

        def use():
            name.click() if press == "click" else name.press(press)

        use()
        assert page.evaluate(chart) == [*near, "resnet_18"]
        assert name.get_attribute("aria-pressed") == "true"
        use()
        assert page.evaluate(chart) == near


@pytest.mark.long
def test_the_chart_goes_over_strides_too(browser, page_file):
    with opened(browser, page_file) as page:
        page.get_by_label("Chart over").select_option("stride")
        chart = CHART.format("#part-stages")
        assert page.evaluate(f"{chart}.scales.x.ticks.map(tick => tick.value)") == [4, 8, 14, 16, 32]
        page.get_by_label("Range of the chart").select_option("best")
        assert page.evaluate(f"{chart}.scales.y.min") > 0.7


@pytest.mark.long
def test_the_map_shows_the_image_below_the_pointer(browser, page_file):
    with opened(browser, page_file) as page:
        chart = CHART.format("#part-embedding-map")
        place = page.evaluate(f"(({{x, y}}) => ({{x, y}}))({chart}.getDatasetMeta(9).data[3])")
        page.locator("#part-embedding-map figure canvas").hover(position=place)
        hover = page.locator(".hover")
        assert hover.locator(".class").inner_text() == "wasp"
        assert "scans/wasp/photo" in hover.locator(".file").inner_text()
        assert hover.locator("img").evaluate("image => image.naturalWidth") > 0
        page.locator("#part-embedding-map h2").hover()
        assert hover.is_hidden()


@pytest.mark.long
def test_classes_are_taken_out_of_the_map_and_put_back(browser, page_file):
    with opened(browser, page_file) as page:
        chart = CHART.format("#part-embedding-map")
        shown = f"(chart => chart.data.datasets.map((_, i) => chart.isDatasetVisible(i)))({chart})"
        legend = page.locator(".classes button")
        assert legend.count() == 10
        legend.filter(has_text="moth").click()
        assert page.evaluate(shown) == [name != "moth" for name in made_ranking()["class_names"]]
        assert legend.filter(has_text="moth").get_attribute("aria-pressed") == "false"
        colour = f"{chart}.data.datasets[0].backgroundColor"
        assert "0.08" not in page.evaluate(colour)  # the others are not faded by a class that is off
        page.get_by_role("button", name="No class").click()
        assert page.evaluate(shown) == [False] * 10
        page.get_by_role("button", name="All classes").click()
        assert page.evaluate(shown) == [True] * 10


@pytest.mark.long
def test_the_other_method_has_its_own_points(browser, page_file):
    with opened(browser, page_file) as page:
        point = f"{CHART.format('#part-embedding-map')}.data.datasets[0].data[0].x"
        before = page.evaluate(point)
        page.get_by_label("Method").select_option(label="UMAP")
        assert page.evaluate(point) == pytest.approx(2 * before, abs=1)
        assert page.evaluate(point) != before


@pytest.mark.long
def test_the_command_is_copied(browser, page_file):
    with opened(browser, page_file) as page:
        page.locator("#part-what-to-run").get_by_role("button", name="Copy").click()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied.startswith("python train.py backbone=convnextv2_nano 'backbone.out_indices=[2,4]'")
