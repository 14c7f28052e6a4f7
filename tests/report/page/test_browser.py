"""Pages in a real browser: what they do by mouse and by keyboard, and what a stranger's names cannot do to them."""

from __future__ import annotations

import pytest

from bbframe.report.page.finished_run import FinishedRun
from bbframe.report.page.html_page import Section, page_text, write_page
from bbframe.report.page.run_page import write_run_page
from tests.report.page.chromium import launched, needs_chromium, opened
from tests.report.page.run_folders import answers_to, photo_data, run_folder, write_photos

pytestmark = pytest.mark.browser

CLASSES = ["a long name", "dog", "gnu"]
BREAK = "<script>window.broken=1</script><img src=x onerror=window.broken=1>"
HOSTILE = [
    f"{BREAK}.png".replace("/", "\u2215"),
    "\"'><svg onload=window.broken=1>",
    "\u202egnp.exe\u2028 \u05d0\u05d1\u05d2 \U0001f408 {{ 7 * 7 }} ${7*7}",
    "</script\u2044><!--" + "x" * 180,
]


@pytest.fixture(scope="module")
def browser():
    needs_chromium()
    with launched() as found:
        yield found


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """The page of a run with photos, two thirds of its answers right."""
    place = tmp_path_factory.mktemp("page")
    write_photos(place / "root", CLASSES, each=60)
    data = photo_data(place / "root", test_fraction=0.5)
    names, rows = answers_to(data)
    return write_run_page(run_folder(place / "run", names, CLASSES, rows), data)


@pytest.fixture(scope="module")
def hostile_file(tmp_path_factory):
    """The page of a run whose classes, files and settings try to break it."""
    place = tmp_path_factory.mktemp("hostile")
    write_photos(place / "root", HOSTILE, each=6, name="{} " + HOSTILE[1] + ".png")
    data = photo_data(place / "root", test_fraction=0.5)
    names, rows = answers_to(data)
    config = {"data": {"name": BREAK, "root": "</script>" + BREAK}, BREAK: [BREAK]}
    settings = {"overrides": [f"name={word}" for word in HOSTILE], "config": config, "name": BREAK, "tags": HOSTILE}
    folder = run_folder(place / "run", names, data.class_names, rows, **settings, assumed={BREAK: 1})
    return write_run_page(folder, data, missing=BREAK)


def texts(page, selector):
    return [text.strip() for text in page.locator(selector).all_inner_texts()]


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_of_a_real_run_opens_without_a_complaint(browser, digits_run, scheme):
    with opened(browser, digits_run / "report.html", scheme=scheme) as page:
        assert texts(page, "h2")[:3] == ["Result", "What was asked", "Curves"]
        assert page.locator(".shot img.tiny").count() == 48
        drawn = page.evaluate("[...document.querySelectorAll('canvas[role=img]')].map(c => !!Chart.getChart(c))")
        assert len(drawn) >= 5
        assert all(drawn)
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 21, 26)"
        assert dark == (scheme == "dark")


@pytest.mark.long
@pytest.mark.parametrize("press", ["click", "Enter", "Space"])
def test_a_table_is_sorted_by_its_heads(browser, page_file, press):
    with opened(browser, page_file) as page:
        table = page.locator("#part-classes table")
        head = table.get_by_role("button", name="recall")

        def use():
            head.click() if press == "click" else head.press(press)
            return [float(text) for text in table.locator("tbody td:nth-child(7)").all_inner_texts()]

        falling = use()
        assert falling == sorted(falling, reverse=True)
        assert table.locator("th[aria-sort=descending]").inner_text().startswith("recall")
        assert use() == falling[::-1]
        assert page.locator("#said").inner_text() == "sorted by recall, ascending"


@pytest.mark.long
def test_cells_without_a_value_stay_last_and_numbers_are_no_words(browser, tmp_path):
    rows = [["b", 9], ["a", None], ["C", 10], ["d", 0.5]]
    columns = [{"title": "name"}, {"title": "n", "number": True}]
    table = Section("Rows", "table", {"columns": columns, "rows": rows, "filter": True})
    write_page(tmp_path / "page.html", "Rows", [table])
    with opened(browser, tmp_path / "page.html") as page:
        page.get_by_role("button", name="n", exact=True).click()
        assert texts(page, "tbody td:first-child") == ["C", "b", "d", "a"]
        page.get_by_role("button", name="n", exact=True).click()
        assert texts(page, "tbody td:first-child") == ["d", "b", "C", "a"]
        page.get_by_role("button", name="name").click()
        assert texts(page, "tbody td:first-child") == ["a", "b", "C", "d"]
        page.get_by_label("Filter").fill("C")
        assert page.locator("tbody tr:visible").count() == 1
        assert texts(page, ".count") == ["1 of 4"]


@pytest.mark.long
def test_a_cell_of_the_matrix_shows_its_images(browser, page_file):
    with opened(browser, page_file) as page:
        cell = page.get_by_label("true dog, predicted gnu", exact=False)
        count = int(cell.inner_text())
        cell.click()
        assert page.locator(".shot").count() == count
        assert texts(page, ".found") == [f"{count} images"]
        assert set(texts(page, ".shot .answer")) == set(texts(page, ".shot.wrong .answer"))
        assert all(text.startswith("✗ gnu") for text in texts(page, ".shot .answer"))
        assert all(text.startswith("is dog") for text in texts(page, ".shot .truth"))


@pytest.mark.long
def test_the_matrix_is_walked_by_arrows(browser, page_file):
    with opened(browser, page_file) as page:
        page.locator(".matrix button[tabindex='0']").focus()
        walked = []
        for key in ("ArrowDown", "ArrowRight", "ArrowUp", "ArrowLeft", "ArrowLeft"):
            page.keyboard.press(key)
            walked.append(page.evaluate("document.activeElement.getAttribute('aria-label')").partition(":")[0])
        assert walked == [  # cells without images are passed over, and the edge is the end
            "true gnu, predicted a long name",
            "true gnu, predicted gnu",
            "true dog, predicted gnu",
            "true dog, predicted dog",
            "true dog, predicted dog",
        ]
        assert page.locator(".matrix button[tabindex='0']").count() == 1
        page.keyboard.press("Enter")
        label = page.locator("[name=label] option:checked").inner_text()
        assert label.startswith("dog")


@pytest.mark.long
def test_images_are_ordered_and_chosen(browser, page_file):
    with opened(browser, page_file) as page:

        def numbers(selector):
            return [float(text.rpartition(" ")[2]) for text in texts(page, selector)]

        losses = numbers(".shot .loss")
        assert losses == sorted(losses, reverse=True)  # the worst first
        assert len(losses) == 48
        page.get_by_role("button", name="More").click()
        assert page.locator(".shot").count() > 48
        page.get_by_label("Order").select_option("best")
        losses = numbers(".shot .loss")
        assert losses == sorted(losses)
        page.get_by_label("Answers").select_option("wrong")
        assert page.locator(".shot.right").count() == 0
        page.locator("[name=label]").select_option("1")
        assert {text.split()[1] for text in texts(page, ".shot .truth")} == {"dog,"}
        page.get_by_role("button", name="All images").click()
        page.get_by_label("Confidence from").fill("80")
        shares = [float(text.split()[-2]) for text in texts(page, ".shot .answer")]
        assert shares
        assert min(shares) >= 80
        page.locator("[name=most]").fill("0")
        assert "None of the" in texts(page, ".found")[0]
        page.get_by_role("button", name="All images").press("Enter")
        assert page.locator(".shot").count() == 48


@pytest.mark.long
def test_an_image_is_enlarged_and_left_by_the_keyboard(browser, page_file):
    with opened(browser, page_file) as page:
        page.locator(".shot").first.press("Enter")
        dialog = page.get_by_role("dialog")
        assert dialog.locator("h3").inner_text().startswith("1 of ")
        first = dialog.locator("dd").last.inner_text()
        assert first.endswith(".png")
        page.keyboard.press("ArrowRight")
        assert dialog.locator("h3").inner_text().startswith("2 of ")
        assert dialog.locator("dd").last.inner_text() != first
        page.keyboard.press("ArrowLeft")
        assert dialog.locator("dd").last.inner_text() == first
        page.keyboard.press("Escape")
        assert page.locator("dialog[open]").count() == 0
        assert page.evaluate("document.activeElement === document.querySelector('.shot')")


@pytest.mark.long
def test_the_heat_can_be_laid_over_the_worst(browser, digits_run):
    with opened(browser, digits_run / "report.html") as page:
        assert page.locator(".shot canvas").count() == 0
        page.get_by_role("button", name="Where it looked").press("Enter")
        assert page.locator(".shot canvas").count() == 24
        page.locator(".shot").first.click()
        assert page.locator("dialog .photo").count() == 2


@pytest.mark.long
@pytest.mark.parametrize("press", ["click", "Enter"])
def test_the_command_is_copied(browser, page_file, press):
    with opened(browser, page_file) as page:
        button = page.get_by_role("button", name="Copy").first
        button.click() if press == "click" else button.press(press)
        page.get_by_role("button", name="Copied").wait_for()
        assert page.evaluate("navigator.clipboard.readText()") == "python train.py backbone=resnet18 optim.lr=0.01"


@pytest.mark.long
@pytest.mark.parametrize("press", ["click", "Space"])
def test_the_theme_is_switched_with_its_charts(browser, page_file, press):
    colours = """() => [getComputedStyle(document.body).backgroundColor,
        Chart.getChart(document.querySelector('canvas')).options.scales.x.ticks.color]"""
    with opened(browser, page_file) as page:
        button = page.locator("#theme")
        light = page.evaluate(colours)
        assert button.get_attribute("aria-label") == "Show the page dark"
        button.click() if press == "click" else button.press(press)
        dark = page.evaluate(colours)
        assert all(one != other for one, other in zip(light, dark, strict=True))
        button.click() if press == "click" else button.press(press)
        assert page.evaluate(colours) == light


@pytest.mark.long
def test_charts_tell_their_numbers_in_a_table(browser, page_file):
    with opened(browser, page_file) as page:
        figure = page.locator("#part-curves figure").first
        figure.get_by_text("The numbers").press("Enter")
        assert figure.locator("tbody tr").all_inner_texts()[:2] == ["training\t1\t1.5", "training\t2\t0.7"]


@pytest.mark.long
@pytest.mark.parametrize("file", ["page_file", "hostile_file"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_page_is_as_wide_as_the_screen(browser, file, width, request):
    with opened(browser, request.getfixturevalue(file), width=width) as page:
        page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true })")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.locator(".shot").first.click()
        box = page.get_by_role("dialog").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width


@pytest.mark.long
def test_hostile_names_break_nothing_and_run_nothing(browser, hostile_file):
    with opened(browser, hostile_file) as page:
        page.get_by_role("button", name="More").click() if page.locator(".more:visible").count() else None
        page.locator(".matrix button").first.click()
        page.locator(".shot").first.click()
        page.keyboard.press("Escape")
        for button in page.locator("th button:visible").all():
            button.click()
        assert page.evaluate("window.broken") is None
        assert page.locator("main script:not([type='application/json']), main svg, main img[src=x]").count() == 0
        shown = page.locator("body").inner_text()
        assert BREAK in shown
        assert "{{ 7 * 7 }} ${7*7}" in shown
        assert "\u202e" not in shown
        options = texts(page, "[name=label] option")
        assert any("<svg onload=window.broken=1>" in option for option in options)


@pytest.mark.long
def test_markup_that_escaping_had_missed_would_not_run(browser, tmp_path):
    """The second wall: the policy of the page refuses what is not its own."""
    text = page_text("A page", [Section("Text", "text", {"text": "HERE"})])
    more = "<script src=https://example.com/a.js></script><iframe src=https://example.com></iframe>"
    style = "<style>h1 { color: rgb(1, 2, 3) }</style><a href='javascript:window.broken=1' id=link>x</a>"
    (tmp_path / "page.html").write_text(text.replace("HERE", f"</pre>{BREAK}{more}{style}"))
    with opened(browser, tmp_path / "page.html", quiet=False) as page:
        page.locator("#link").click()
        assert page.evaluate("window.broken") is None
        assert page.evaluate("getComputedStyle(document.querySelector('h1')).color") != "rgb(1, 2, 3)"
        assert sum("Content Security Policy" in text for text in page.complaints) >= 5


@pytest.mark.long
def test_a_thousand_classes_show_the_most_confused_pairs(browser, tmp_path):
    names = [f"class {i}" for i in range(1000)]
    rows = [(0, i, (i * 7) % 1000 if i % 2 else i, 0.9, 0.05) for i in range(1000)]
    rows += [(0, 3, 5, 0.9, 0.05)] * 30
    file = write_run_page(run_folder(tmp_path / "run", ["a"], names, rows))
    with opened(browser, file) as page:
        assert page.locator(".matrix tbody tr").count() == 20
        first = page.locator(".pairs tbody tr").first
        assert first.inner_text().split("\t")[:3] == ["class 3", "class 5", "30"]
        first.get_by_role("button").click()
        assert page.locator("[name=label] option:checked").inner_text().startswith("class 3")
        assert page.locator(".shot").count() == 30
        assert page.locator(".shot").first.locator(".absent").count() == 1


@pytest.mark.long
def test_a_run_without_any_result_has_a_page(browser, tmp_path):
    folder = FinishedRun(tmp_path / "run").folder
    folder.mkdir()
    (folder / "config.yaml").write_text("seed: 0\n")
    with opened(browser, write_run_page(folder)) as page:
        assert "this run has not ended" in page.locator("header").inner_text()
