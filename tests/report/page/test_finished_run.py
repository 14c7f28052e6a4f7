"""What a run's folder says, also that of an earlier version, and what it says when a file is broken."""

from __future__ import annotations

import json
import math

import pytest

from bbframe.report.page.finished_run import read_predictions, read_run
from tests.report.page.run_folders import run_folder

ROWS = [(0, 0, 0, 0.9, 0.9), (1, 1, 0, 0.7, 0.25)]


@pytest.fixture
def folder(tmp_path):
    return run_folder(tmp_path / "run", ["a.png", "b\u202e.png"], ["cat", "dog"], ROWS)


def test_what_a_run_leaves_is_read(folder):
    run = read_run(folder)
    assert (run.metric, run.mode, run.best) == ("accuracy", "max", (2, 0.75))
    assert run.tested == {"accuracy": 0.5, "loss": 0.5}
    assert run.interval("accuracy") == (0.4, 0.6)
    assert run.interval("loss") is None
    assert run.curves["val/accuracy"] == [(1, 0.5), (2, 0.75)]
    assert "step" not in run.curves
    rows = read_predictions(folder / "predictions.csv", ["cat", "dog"])
    assert [row.name for row in rows] == ["a.png", "b\\u202e.png"]
    assert rows[1][1:] == (1, 0, 0.7, 0.25, pytest.approx(-math.log(0.25), abs=1e-6))


def test_a_run_of_an_earlier_version_is_read(folder):
    """Its metrics have doubled names, its epochs count from 0 in several rows, its table lacks a column."""
    old = {"metric": "val/accuracy", "best": {"metric": "val/accuracy", "value": 0.8, "epoch": 2}}
    (folder / "metrics.json").write_text(json.dumps({**old, "test": {"test/accuracy": 0.7}}))
    lines = [
        "epoch,step,lr-AdamW,train/loss,val/loss",
        ",0,0.1,,",
        "0,9,,,2.0",
        "0,9,,1.0,",
        "1,19,,0.5,",
        "1,19,,,1.5",
    ]
    (folder / "metrics.csv").write_text("\n".join(lines))
    (folder / "predictions.csv").write_text(f"image,class,predicted,probability,loss\na,cat,dog,0.7,{math.log(4)}\n")
    run = read_run(folder)
    assert (run.metric, run.mode, run.best, run.tested) == ("accuracy", "max", (2, 0.8), {"accuracy": 0.7})
    assert run.curves == {"train/loss": [(1, 1.0), (2, 0.5)], "val/loss": [(1, 2.0), (2, 1.5)]}
    (row,) = read_predictions(folder / "predictions.csv", ["cat", "dog"])
    assert row.true_probability == pytest.approx(0.25)


def test_a_run_that_has_not_ended_is_empty(folder):
    for name in ("metrics.json", "metrics.csv", "predictions.csv", "environment.json", "overrides.yaml"):
        (folder / name).unlink()
    run = read_run(folder)
    assert (run.metric, run.best, run.tested, run.curves, run.overrides) == ("", None, {}, {}, [])
    assert read_predictions(folder / "predictions.csv", []) == []


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metrics.json", "{", "metrics.json: cannot be read as JSON"),
        ("metrics.json", "[]", "metrics.json: must hold a mapping, not list"),
        ("metrics.csv", "epoch,val/loss\n1,nought\n", "metrics.csv: 'nought' is not a number"),
        ("config.yaml", "- a\n", "config.yaml: must hold a mapping, not list"),
    ],
)
def test_a_broken_file_is_named_in_one_line(folder, name, text, message):
    (folder / name).write_text(text)
    with pytest.raises(ValueError, match=message) as told:
        read_run(folder)
    assert "\n" not in str(told.value)


def test_a_class_that_is_none_of_the_run_is_named(folder):
    with pytest.raises(ValueError, match=r"predictions\.csv: 'dog' is none of the classes of the run"):
        read_predictions(folder / "predictions.csv", ["cat"])


def test_a_folder_without_a_record_is_no_run(tmp_path):
    with pytest.raises(ValueError, match=r"not a run folder, it holds no config\.yaml"):
        read_run(tmp_path)
