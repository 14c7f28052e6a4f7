"""The page of a sweep: what its sections hold, what is on the Pareto front, and names that are no markup."""

from __future__ import annotations

import dataclasses
import re

import pytest

from bbframe.report.page.sweep_page import (
    cost_sections,
    effect_sections,
    leaderboard_sections,
    lost_section,
    runs_section,
    sweep_figures,
    write_sweep_page,
)
from bbframe.report.page.sweep_results import (
    LostJob,
    Measured,
    OptionEffect,
    OptionValue,
    RankedTable,
    RunSummary,
    SettingSummary,
    SweepSummary,
)
from bbframe.report.pareto_front import pareto_front

HOSTILE = "</script><script>window.broken = 1</script>\" ' & \u202e עברית 🐈"


def setting(label, val, test=None, gmacs=1.0, verdict="tied", basis="validation, 3 common seeds"):
    costs = {"params": 2e6, "gmacs": gmacs, "epochs": 3.0, "seconds": 10 * gmacs}
    scores = {"val": Measured(val, val - 0.01, val + 0.01, "seeds"), "test": test}
    return SettingSummary(label, f"net {label}", "timm", costs, scores, "3", verdict, basis)


@pytest.fixture
def table():
    settings = [
        setting("a", 0.9, Measured(0.8, 0.7, 0.95, "images"), gmacs=2.0, verdict="first", basis=""),
        setting("b", 0.8, gmacs=0.5),
        setting("c", 0.7, gmacs=4.0, verdict="worse", basis="test images of one run each"),
    ]
    lr = OptionEffect(
        "optim.lr",
        [OptionValue("0.001", 2, Measured(0.85, 0.2, 1.5, "settings")), OptionValue("0.1", 1, Measured(0.7))],
        [(0.001, 0.9, "a"), (0.001, 0.8, "b"), (0.1, 0.7, "c")],
    )
    runs = [RunSummary("0_a", "a", 1, None, {"val": 0.9, "test": None}, 9.0, True)]
    notes = ["b: averages 2 of 3 runs"]
    return RankedTable(
        ["ordered by val accuracy"], "", "accuracy", "max", ["val", "test"], settings, [lr], runs, notes
    )


@pytest.mark.parametrize(
    ("points", "mode", "front"),
    [
        ([(1, 0.5), (2, 0.9), (3, 0.8), (4, 0.95)], "max", [0, 1, 3]),
        ([(1, 0.5), (2, 0.9), (3, 0.4), (4, 0.45)], "min", [0, 2]),
        ([(2, 0.9), (2, 0.95), (1, 0.1)], "max", [2, 1]),
        ([(1, 0.5), (2, 0.5)], "max", [0]),
        ([], "max", []),
    ],
)
def test_nothing_cheaper_is_as_good_as_what_is_on_the_front(points, mode, front):
    assert pareto_front(points, mode) == front


def test_the_leaderboard_says_what_orders_it_and_marks_what_is_tied(table):
    board, notes = leaderboard_sections(table, "Leaderboard")
    assert board.note == "Ordered by val accuracy."
    titles = [column["title"] for column in board.data["columns"]]
    assert titles[:5] == ["place", "setting", "validation accuracy", "test accuracy", "against the first"]
    assert "source" not in titles
    first, second, third = board.data["rows"]
    assert first[2:4] == [{"text": "0.9000 ± 0.0100", "sort": 0.9}, {"text": "0.8000 [0.7000, 0.9500]", "sort": 0.8}]
    assert second[3] is None
    assert (second[4], third[4]) == ("tied", "worse on test images")
    assert board.data["marked"] == [0, 1]
    assert notes.data["text"] == "b: averages 2 of 3 runs"


def test_a_table_that_is_not_comparable_says_why(table):
    apart = dataclasses.replace(table, reason="image_size is [64, 64], not [32, 32]", notes=[])
    (board,) = leaderboard_sections(apart, "Leaderboard 2")
    assert board.note.startswith("Not comparable to the first table: image_size is [64, 64], not [32, 32]. ")


def test_costs_show_the_front_and_the_other_settings(table):
    (section,) = cost_sections(table, "Costs")
    chart = section.data["charts"][0]
    assert chart["title"] == "accuracy against GMACs an image"
    series = {one["name"]: one for one in chart["series"]}
    assert series["on the front"]["points"] == [[0.5, 0.8], [2.0, 0.9]] == series["Pareto front"]["points"]
    assert series["on the front"]["labels"] == ["b", "a, test 0.8000"]
    assert series["other settings"]["points"] == [[4.0, 0.7]]
    assert [chart["title"].partition(" against ")[2] for chart in section.data["charts"]] == [
        "GMACs an image",
        "parameters (M)",
        "time of a run (s)",
    ]
    assert cost_sections(dataclasses.replace(table, settings=table.settings[:1]), "Costs") == []


def test_each_option_has_the_mean_of_its_values_and_a_chart_when_it_is_a_number(table):
    rows, charts = effect_sections(table, "Options")
    assert rows.data["rows"][0] == [
        "optim.lr",
        {"text": "0.001", "sort": 0.001},
        2,
        {"text": "0.8500 ± 0.6500", "sort": 0.85},
    ]
    (chart,) = charts.data["charts"]
    assert chart["x"] == {"title": "optim.lr", "log": True}
    assert effect_sections(dataclasses.replace(table, effects=[]), "Options") == []


def test_runs_link_to_their_pages_below_the_sweep_whatever_they_are_called(table):
    link = runs_section(table, "Runs").data["rows"][0][0]
    assert link == {"text": "0_a", "link": "./0_a/report.html"}
    for name in ("javascript:alert(1)", "../x y#?", "//elsewhere"):
        run = RunSummary(name, "a", 1, 0, {}, None, True)
        row = runs_section(dataclasses.replace(table, runs=[run]), "Runs").data["rows"][0]
        assert re.fullmatch(r"\./[\w%./]+/report\.html", row[0]["link"])
        assert row[3] == 0
    without = RunSummary("x", "a", 1, None, {}, None, False)
    assert runs_section(dataclasses.replace(table, runs=[without]), "Runs").data["rows"][0][0] == "x"


def test_the_result_names_the_first_and_counts_what_failed(table):
    sweep = SweepSummary("s", [], [table], [LostJob("1_b", "b", "failed", "no memory", False)])
    figures = {one["label"]: (one["value"], one["detail"]) for one in sweep_figures(sweep).data["figures"]}
    assert figures["first"] == ("net a", "a")
    assert figures["validation accuracy"] == ("0.9000", "orders the table; 95 % 0.8900 to 0.9100")
    assert figures["runs"] == ("2", "1 without a result")
    assert figures["tied with it"][0] == "1"
    assert lost_section(sweep.lost).data["rows"] == [["b", "1_b", "failed", "no memory"]]


def test_hostile_names_stay_text(table, tmp_path):
    hostile = dataclasses.replace(
        table,
        head=[HOSTILE],
        reason=HOSTILE,
        metric=HOSTILE,
        settings=[setting(HOSTILE, 0.9), setting("b", 0.8, gmacs=0.1)],
        effects=[OptionEffect(HOSTILE, [OptionValue(HOSTILE, 1, Measured(0.5))], [(1.0, 0.5, HOSTILE)])],
        runs=[RunSummary(HOSTILE, HOSTILE, HOSTILE, HOSTILE, {}, None, True)],
        notes=[HOSTILE],
    )
    lost = [LostJob(HOSTILE, HOSTILE, HOSTILE, HOSTILE, True)]
    path = write_sweep_page(tmp_path, SweepSummary(HOSTILE, [f"name={HOSTILE}"], [hostile], lost))
    page = path.read_text()
    assert "<script>window.broken" not in page
    assert page.count("window.broken") > 20
    assert "\u202e" not in page
    assert "python train.py -m &#39;name=" in page


@pytest.mark.long
def test_a_sweep_of_thousands_fits_into_a_page(table, tmp_path):
    settings = [setting(f"setting {i}", i / 1e4, gmacs=i + 1.0) for i in range(2000)]
    runs = [RunSummary(f"{i}", "a", i, 0, {"val": 0.1}, 1.0, True) for i in range(2000)]
    large = dataclasses.replace(table, settings=settings, runs=runs)
    path = write_sweep_page(tmp_path, SweepSummary("large", [], [large], []))
    assert path.stat().st_size < 8_000_000
    assert "The first 1,500 of 2,000; leaderboard.csv has all." in path.read_text()
