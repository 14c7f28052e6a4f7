"""The page of a ranking: what its sections hold, what it reads, its size, and names that are no markup."""

from __future__ import annotations

import copy
import json
import re

import pytest

from bbframe.report.page import rank_page
from bbframe.report.page.html_page import MOST_BYTES, Section, page_text
from bbframe.report.page.map_section import embedding_sections
from bbframe.report.page.race_sections import race_sections
from bbframe.report.page.rank_page import read_rank_page_data, write_rank_page
from bbframe.report.page.rank_sections import (
    advice_sections,
    cost_comparison,
    failed_sections,
    rank_figures,
    ranking_sections,
)
from bbframe.report.page.stage_scores import stage_sections
from tests.report.made_ranking import NETWORKS, made_map, made_ranking

HOSTILE = "</script><script>window.broken = 1</script>\" ' & \u202e עברית 🐈"


def figures_of(ranking):
    return {one["label"]: (one["value"], one["detail"]) for one in rank_figures(ranking).data["figures"]}


def columns_of(section):
    """The cells of a table by the title of their column."""
    titles = [column["title"] for column in section.data["columns"]]
    return dict(zip(titles, zip(*section.data["rows"], strict=True), strict=True))


def headings(path):
    return re.findall("<h2>(.*?)</h2>", path.read_text())


def write_files(folder, ranking, found=None):
    folder.mkdir(exist_ok=True)
    (folder / "rank.json").write_text(json.dumps(ranking))
    if found is not None:
        (folder / "embedding_map.json").write_text(json.dumps(found))


def test_the_result_says_who_is_first_how_surely_and_who_won():
    figures = figures_of(made_ranking())
    assert figures["first"] == ("convnextv2_nano", "stages stage2, stage4")
    assert figures["ridge"] == ("0.965", "95 % 0.954 to 0.975; leave-one-out ridge accuracy")
    assert figures["probability of being best"][0] == "52%"
    assert figures["tied with it"][0] == "3"
    assert figures["winner of the race"] == ("convnextv2_nano", "and first by score")
    assert figures["its test accuracy"] == ("0.977", "95 % 0.967 to 0.986")
    assert figures["backbones"] == ("13", "ranked; 1 failed")
    assert figures["time"] == ("5 min 12 s", "of a budget of 15 min")


def test_a_winner_that_was_not_first_says_its_place():
    ranking = made_ranking()
    ranking["race"]["winner"] = "swinv2_tiny"
    assert figures_of(ranking)["winner of the race"] == ("swinv2_tiny", "place 3 by score")
    ranking["race"]["winner"] = "of an earlier ranking"
    assert figures_of(ranking)["winner of the race"] == ("of an earlier ranking", "")


def test_the_table_marks_the_first_and_what_is_tied():
    (section,) = ranking_sections(made_ranking())
    table = columns_of(section)
    assert section.data["marked"] == [0, 1, 2, 3]
    assert table["place"] == tuple(range(1, 14))
    assert [cell["text"] for cell in table["verdict"][:5]] == ["first", "tied", "tied", "tied", "behind"]
    assert table["ridge"][1] == {"text": "0.963 [0.952, 0.973]", "sort": 0.963}
    assert table["chosen stages"][1] == "stage6,\u00a0stage12"
    assert table["prior top-1"][-1] is None
    assert table["race test"][0]["text"] == "0.977 [0.967, 0.986]"
    assert table["to the first"][0] is None
    assert table["to the first"][1]["text"] == "-0.002 [-0.010, +0.007]"
    assert table["params (M)"][0] == {"text": "15.00", "sort": 15_000_000}
    assert table["ms an image"][0]["text"] == "31"


def test_columns_of_what_was_not_done_are_left_out():
    (section,) = ranking_sections(made_ranking(3, race=False, prior=False))
    assert not {"race val", "race test", "prior top-1"} & columns_of(section).keys()


def test_the_picture_has_a_row_for_each_kind_of_features_and_all_scores():
    ranking = made_ranking(detection=True)
    picture, numbers, steps = stage_sections(ranking)
    names = [score["name"] for score in picture.data["scores"]]
    assert names == [
        "ridge",
        "kNN",
        "LDA",
        "LogME",
        "box R²",
        *(f"box R², {size} boxes" for size in ("small", "medium", "large")),
    ]
    rows = picture.data["rows"]
    assert [row["name"] for row in rows[:3]] == ["convnextv2_nano", "dinov2_small", "dinov2_small, class token"]
    assert [cell["chosen"] for cell in rows[0]["cells"]] == [False, True, False, True]
    assert not any(cell["chosen"] for cell in rows[2]["cells"])  # the class token was not chosen
    assert [cell["depth"] for cell in rows[0]["cells"]] == [0.25, 0.5, 0.75, 1]
    first = ranking["backbones"][0]["stages"][0]
    cell = rows[0]["cells"][0]
    assert cell["scores"] == pytest.approx([first["scores"][key] for key in ranking["scores"]])
    assert cell["low"][3] is None  # LogME has no interval
    assert len(numbers.data["rows"]) == sum(len(one["stages"]) for one in ranking["backbones"])
    gains = columns_of(steps)["gain"]
    assert gains[0] is None
    assert gains[1]["text"] == "0.020 [0.010, 0.030]"


def test_stages_stand_from_input_to_output_whatever_their_order():
    ranking = made_ranking(1)
    ranking["backbones"][0]["stages"].reverse()
    rows = stage_sections(ranking)[0].data["rows"]
    assert [cell["name"] for cell in rows[0]["cells"]] == ["stage1", "stage2", "stage3", "stage4"]


def test_costs_name_the_front_and_what_is_tied():
    (section,) = cost_comparison(made_ranking())
    latency, size = section.data["charts"]
    series = {one["name"]: one for one in latency["series"]}
    assert series["on the front"]["labels"] == ["resnet_18", "resnet_50", "convnextv2_nano"]
    assert series["on the front"]["named"] == [True] * 3
    assert series["Pareto front"]["points"] == [[12.0, 0.904], [28.0, 0.915], [31.0, 0.965]]
    others = series["other backbones"]
    named = [label for label, shown in zip(others["labels"], others["named"], strict=True) if shown]
    assert named == ["dinov2_small", "swinv2_tiny", "focalnet_tiny"]
    assert others["ends"][0] == (0.963 - 0.011, 0.963 + 0.010)
    assert size["x"]["title"] == "parameters (M)"
    assert cost_comparison(made_ranking(1)) == []


def test_the_race_links_to_pages_that_are_there(tmp_path):
    ranking = made_ranking()
    for place in ("race/rung1", "race/rung3/0_convnextv2_nano"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "report.html").write_text("a page")
    (tmp_path.parent / "report.html").write_text("not below the ranking")
    ranking["race"]["rungs"][2]["folder"] = ".."
    rungs, runs, notes = race_sections(ranking, tmp_path)
    assert columns_of(rungs)["rung"] == ({"text": "rung 1", "link": "./race/rung1/report.html"}, "rung 2", "rung 3")
    assert columns_of(rungs)["kept"][1] == "convnextv2_nano"
    link = "./race/rung3/0_convnextv2_nano/report.html"
    assert columns_of(runs)["backbone"][:2] == ({"text": "convnextv2_nano", "link": link}, "dinov2_small")
    assert columns_of(runs)["finalist by"][:2] == ("score and prior", "score")
    assert runs.data["marked"] == [0]
    assert notes.data["items"] == ["the budget ended it"]
    assert race_sections(made_ranking(race=False), tmp_path) == []


def test_the_map_shows_components_first_and_no_photo_from_elsewhere():
    found = made_map(50)
    found["thumbnails"][:2] = ["https://example.org/x.png", "javascript:alert(1)"]
    (section,) = embedding_sections(made_ranking(), found)
    assert [view["name"] for view in section.data["views"]] == ["PCA", "UMAP"]
    assert section.data["views"][0]["axes"] == [
        "first component, 31% of the variance",
        "second component, 12% of the variance",
    ]
    assert section.data["thumbnails"][:2] == ["", ""]
    assert "48 of them have a photo" in section.note
    assert "1,500 boxes" in embedding_sections(made_ranking(detection=True), made_map(1500, side=8))[0].note
    assert embedding_sections(made_ranking(), None) == []
    assert embedding_sections(made_ranking(), {**found, "points": [], "labels": []}) == []


def test_the_advice_has_a_command_and_its_doubts():
    command, doubts = advice_sections(made_ranking())
    assert command.data["text"].startswith("python train.py backbone=convnextv2_nano")
    assert "not a training run" in doubts.data["paragraphs"][0]
    assert "ImageNet" in doubts.data["paragraphs"][0]
    assert len(doubts.data["items"]) == 2
    assert "ImageNet" not in advice_sections(made_ranking(prior=False))[1].data["paragraphs"][0]


def test_what_failed_is_named_with_its_reason():
    (section,) = failed_sections(made_ranking())
    assert section.data["rows"][0][0] == "maskformer_swin_tiny"
    assert "cannot be reached" in section.data["rows"][0][1]
    assert failed_sections(made_ranking(failed=False)) == []


def test_untrained_weights_are_said_in_the_title_the_table_and_every_picture(tmp_path):
    some = made_ranking(6, untrained=("convnextv2_nano", "swin_tiny"))
    page = write_rank_page(tmp_path, some, made_map(40)).read_text()
    assert "<title>Backbones for image_folder (some weights untrained)</title>" in page
    parts = re.split("<h2>", page)[1:]
    assert [part.partition("<")[0] for part in parts][:6] == [
        "Result", "Ranking", "Stages", "Costs", "Race", "Embedding map",
    ]  # fmt: skip
    for part in parts[:6]:
        assert "untrained: convnextv2_nano, swin_tiny" in part
    pictures = re.findall("<figcaption>(.*?)</figcaption>", page, re.DOTALL)
    assert len(pictures) == 4
    assert all("untrained" in caption for caption in pictures)
    every = tuple(name for name, *_ in NETWORKS[:2])
    assert "(untrained weights)" in write_rank_page(tmp_path, made_ranking(2, untrained=every), None).read_text()
    (tmp_path / "trained").mkdir()
    page = write_rank_page(tmp_path / "trained", made_ranking(6), made_map(40)).read_text()
    assert "untrained" not in page


def test_the_page_has_the_sections_in_their_order_with_the_audit_before_the_doubts(tmp_path):
    audit = [Section("Duplicates", "text", {"text": "none"})]
    path = write_rank_page(tmp_path, made_ranking(), made_map(40), audit)
    assert path == tmp_path / "report.html"
    assert headings(path) == [
        "Result", "Ranking", "Stages", "Costs", "Race", "Embedding map", "Duplicates", "What failed", "What to run",
        "How to read it",
    ]  # fmt: skip


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_backbones_or_none_have_a_page_too(tmp_path, count):
    ranking = {**made_ranking(max(1, count), race=False, prior=False), "notes": []}
    ranking["backbones"] = ranking["backbones"][:count]
    path = write_rank_page(tmp_path, ranking, None)
    assert ("No backbone could be ranked" in path.read_text()) == (count == 0)
    assert ("Ranking" in headings(path)) == (count > 0)


def test_missing_values_leave_no_trace_of_nan(tmp_path):
    ranking = made_ranking(4)
    first, second, *_ = ranking["backbones"]
    first |= dict.fromkeys(
        ("low", "high", "probability_best", "params", "gmacs", "latency_seconds", "chosen", "seconds")
    )
    second |= {"score": float("nan"), "stages": [], "race": None}
    first["stages"][0] |= {"scores": {"ridge": float("nan")}, "low": None, "high": None, "stride": None}
    for key in ("budget_seconds", "seconds", "command", "notes"):
        ranking[key] = None
    page = write_rank_page(tmp_path, ranking, made_map(20, umap=False)).read_text()
    content = re.sub("<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"\b(nan|NaN|None)\b", content)


def test_hostile_names_stay_text(tmp_path):
    ranking = made_ranking(5, untrained=("dinov2_small",))
    for one in ranking["backbones"]:
        one["name"] += HOSTILE
        one["stages"][0]["name"] = one["stages"][0]["kind"] = HOSTILE
        one["verdict"] = HOSTILE
    for key in ("data", "task", "part", "command"):
        ranking[key] = HOSTILE
    ranking |= {"class_names": [HOSTILE] * 10, "failed": [{"name": HOSTILE, "reason": HOSTILE}], "notes": [HOSTILE]}
    ranking["scores"] = dict.fromkeys(ranking["scores"], HOSTILE)
    ranking["race"] |= {"winner": HOSTILE, "metric": HOSTILE, "notes": [HOSTILE]}
    for rung in ranking["race"]["rungs"]:
        rung |= {"folder": "javascript:alert(1)", "entrants": [HOSTILE], "kept": [HOSTILE]}
    found = {**made_map(30), "backbone": HOSTILE, "stage": HOSTILE, "names": [HOSTILE] * 30}
    page = write_rank_page(tmp_path, ranking, found).read_text()
    assert "<script>window.broken" not in page
    assert page.count("window.broken") > 60
    assert "\u202e" not in page
    assert "javascript:" not in page.partition("<body>")[2].partition("<script>")[0]


def test_photos_without_room_are_left_out(tmp_path, monkeypatch):
    found = made_map(200)
    found["thumbnails"] = ["data:image/png;base64," + "A" * 60_000] * 200
    path = write_rank_page(tmp_path, made_ranking(), found)
    assert MOST_BYTES - 100_000 < path.stat().st_size <= MOST_BYTES
    kept = path.read_text().count("A" * 60_000)
    assert 100 < kept < 200
    assert f"{kept} of them have a photo in this page" in path.read_text()


@pytest.mark.long
def test_a_large_ranking_fits(tmp_path):
    ranking = made_ranking(1, race=False)
    one = ranking["backbones"][0]
    stages = [{**one["stages"][0], "name": f"blocks.{i}", "index": i} for i in range(1, 13)]
    ranking["backbones"] = [{**one, "name": f"net {i}", "stages": stages, "verdict": "tied"} for i in range(250)]
    ranking["class_names"] = [f"class {i}" for i in range(20_000)]
    page = write_rank_page(tmp_path, ranking, made_map(1500, 1000))
    assert page.stat().st_size < MOST_BYTES
    assert "The first 200 of 250" in page.read_text()


def test_what_was_written_is_read_again(tmp_path):
    ranking, found = made_ranking(), made_map(30)
    write_files(tmp_path, ranking)
    assert read_rank_page_data(tmp_path) == (ranking, None)
    write_files(tmp_path, ranking, found)
    assert read_rank_page_data(tmp_path) == (ranking, found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r, m: r.pop("backbones"), "rank.json: has no 'backbones'; run bbframe rank again"),
        (lambda r, m: r.update(backbones={}), "rank.json: 'backbones' must be a list"),
        (lambda r, m: r["backbones"][1].pop("name"), r"rank.json: backbones\[1\] has no name or no stages"),
        (lambda r, m: r["backbones"][0]["stages"][0].pop("scores"), r"a stage of backbones\[0\] has no name, index"),
        (lambda r, m: m.pop("labels"), "embedding_map.json: has no 'labels'"),
        (lambda r, m: m["points"].pop(), "embedding_map.json: 'points' must hold a pair of numbers a label"),
        (lambda r, m: m.update(umap=[[1]] * 30), "embedding_map.json: 'umap' must hold a pair of numbers a label"),
    ],
)
def test_a_broken_file_is_named_in_one_line(tmp_path, change, message):
    ranking, found = made_ranking(2), made_map(30)
    change(ranking, found)
    write_files(tmp_path, ranking, found)
    with pytest.raises(ValueError, match=message) as caught:
        read_rank_page_data(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_ranking_or_with_half_a_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"not the folder of a ranking, it holds no rank\.json"):
        read_rank_page_data(tmp_path)
    for text, words in (('{"a": ', "cannot be read as JSON"), ("[1]", "must hold a mapping, not list")):
        (tmp_path / "rank.json").write_text(text)
        with pytest.raises(ValueError, match=words):
            read_rank_page_data(tmp_path)


def test_the_data_is_left_as_it_was(tmp_path):
    ranking, found = made_ranking(), made_map(30)
    before = copy.deepcopy((ranking, found))
    write_rank_page(tmp_path, ranking, found)
    assert (ranking, found) == before


def test_every_section_can_stand_in_a_page():
    sections = rank_page.rank_page_sections(rank_page.Path("nowhere"), made_ranking(2), made_map(9), [])
    assert page_text("a page", sections).count("<section") == 9
