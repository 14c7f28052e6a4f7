"""The page of a sweep in a real browser: sorting, filtering, links, charts, and names that cannot break it."""

from __future__ import annotations

import pytest

from bbframe.sweep.leaderboard import write_report
from tests.report.page.chromium import launched, needs_chromium, opened
from tests.sweep.run_folders import run_folder, summary

pytestmark = pytest.mark.browser

BREAK = "<script>window.broken=1</script><img src=x onerror=window.broken=1>\"' \u202e\u05d0\u05d1 \U0001f408"


@pytest.fixture(scope="module")
def browser():
    needs_chromium()
    with launched() as found:
        yield found


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """The page of a sweep of three networks by two rates, one of them with a name that tries to break it."""
    sweep = tmp_path_factory.mktemp("sweep")
    number = 0
    for backbone, accuracy in (("resnet", 0.9), (BREAK, 0.95), ("swin", 0.8)):
        for rate in (0.001, 0.1):
            for seed in (1, 2):
                overrides = [f"backbone={backbone}", f"optim.lr={rate}", f"seed={seed}"]
                content = summary(backbone, accuracy - rate / 4 + seed / 1000, seed, overrides)
                folder = run_folder(sweep, f"{number}_run", {**content, "gmacs": 1 + number})
                (folder / "report.html").write_text("<title>one run</title>")
                number += 1
    run_folder(sweep, f"{number}_failed", f"no memory {BREAK}", [f"backbone={BREAK}", "optim.lr=9"])
    return write_report(sweep)


def texts(page, selector):
    return [text.strip() for text in page.locator(selector).all_inner_texts()]


@pytest.mark.long
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_opens_as_wide_as_the_screen_with_all_its_parts(browser, page_file, width):
    with opened(browser, page_file, width) as page:
        assert texts(page, "h2") == ["Result", "Leaderboard", "Costs", "Options", "Runs", "Jobs without a result"]
        drawn = page.evaluate("[...document.querySelectorAll('canvas[role=img]')].map(c => !!Chart.getChart(c))")
        assert drawn == [True] * 4
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("window.broken") is None
        assert "no memory <script>" in page.locator("#part-jobs-without-a-result").inner_text()


@pytest.mark.long
def test_the_leaderboard_is_sorted_and_filtered(browser, page_file):
    with opened(browser, page_file) as page:
        places = "#part-leaderboard tbody tr:visible td:first-child"
        assert texts(page, places) == ["1", "2", "3", "4", "5", "6"]
        largest, smallest = "backbone=swin optim.lr=0.1", "backbone=resnet optim.lr=0.001"
        for first in (largest, smallest):
            page.locator("#part-leaderboard th button", has_text="GMACs").click()
            assert texts(page, "#part-leaderboard tbody tr td:nth-child(2)")[0] == first
        page.locator("#part-leaderboard input[type=search]").fill("swin")
        assert len(texts(page, places)) == 2


@pytest.mark.long
def test_a_link_leads_to_the_page_of_the_run(browser, page_file):
    with opened(browser, page_file) as page:
        links = page.locator("#part-runs a")
        assert links.count() == 12
        targets = {link.get_attribute("href") for link in links.all()}
        assert targets == {f"./{number}_run/report.html" for number in range(12)}
        assert all((page_file.parent / target).is_file() for target in targets)
