"""The page of an audit: what it shows of what was found, and a stranger's names in it."""

from __future__ import annotations

import pytest

from bbframe.report.page.data_page import MOST_SHOWN, shown_numbers, write_data_page
from bbframe.report.page.thumbnails import data_uri
from tests.audit.test_perceptual_hash import photo
from tests.report.page.chromium import launched, needs_chromium, opened

HOSTILE = "</script><img src=x onerror=window.broken=1>{{ 7 * 7 }}"


def finding(problem, number, twin=None, **more):
    told = {"part": "train", "image": f"{number}.png", "score": 0.9, "action": "check", "label": "cat"}
    rest = {"suggestion": "", "other": "" if twin is None else f"test: {twin}.png", "detail": ""}
    return {"problem": problem, "number": number, "twin": twin, **told, **rest, **more}


def audit(findings, **more):
    problems = {}
    for one in findings:
        problems[one["problem"]] = problems.get(one["problem"], 0) + 1
    summary = {"images": {"train": 300, "test": 20}, "classes": 2, "imbalance": 1.5, "copies": {}, "leaks": {}}
    return {
        "class_names": ["cat", HOSTILE],
        "summary": summary,
        "per_class": {"train": [200, 100], "test": [10, 10]},
        "noun": "images",
        "features": "16 x 16 pixels",
        "confirmed_labels": 0.95,
        "problems": problems,
        "histograms": [{"title": "Size of images", "axis": "pixels", "bars": [["1-2", 3], ["2-4", 5]]}],
        "findings": findings,
        "notes": ["A note."],
        "command": "bbframe data data=digits --out fixes.csv",
        "arguments": "data=digits",
        "fixes": "fixes.csv",
        **more,
    }


FOUND = [
    finding("unreadable", 1, detail=HOSTILE, action="exclude"),
    finding("leak", 2, 3, action="exclude"),
    *(finding("wrong label", 10 + i, suggestion=HOSTILE, image=f"{HOSTILE}{i}") for i in range(120)),
    finding("outlier", 200),
]


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    plain = audit(FOUND)
    image = photo(0)
    photos = {number: (data_uri(image), image.size) for number in shown_numbers(plain)[:50]}
    photos[2] = "is cut off"
    write_data_page(path, "photos", plain, photos)
    return path


def test_the_most_important_photos_come_first_and_are_limited():
    numbers = shown_numbers(audit(FOUND))
    assert numbers[:3] == [2, 3, 10]
    assert len(numbers) == 2 + MOST_SHOWN + 1
    assert 1 not in numbers  # an unreadable image has no photo


def test_every_problem_has_its_section(page_file):
    text = page_file.read_text(encoding="utf-8")
    for word in (
        "Leaks between parts",
        "Likely wrong labels",
        "Outliers",
        "Unreadable",
        "Classes",
        "Sizes",
        "A note.",
    ):
        assert word in text
    assert "The first 96 of 120." in text
    assert "python train.py data=digits data.exclude=fixes.csv" in text
    assert "is cut off" in text
    assert "<img src=x" not in text
    assert "49" not in text.partition("<main")[2].partition("</main>")[0].replace("149", "").split("base64")[0]


def test_nothing_found_is_said(tmp_path):
    write_data_page(tmp_path / "report.html", "photos", audit([], histograms=[], notes=[]), {})
    text = (tmp_path / "report.html").read_text()
    assert "Nothing was found that would spoil a comparison." in text
    assert "data.exclude" not in text.partition("<main")[2]


@pytest.mark.long
@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_opens_without_a_complaint_and_fits(page_file, width):
    needs_chromium()
    with launched() as browser, opened(browser, page_file, width) as page:
        assert page.evaluate("window.broken") is None
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator(".card:visible").count() == 1 + 24 + 1
        page.get_by_text("72 more").click()
        assert page.locator(".card:visible").count() == 1 + 96 + 1
