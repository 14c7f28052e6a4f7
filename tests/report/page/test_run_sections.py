"""What every run's page says: the command that repeats it, the result, the curves, the environment."""

from __future__ import annotations

import json
import shlex

import pytest

from bbframe.data import make_data
from bbframe.data.images.image_options import DigitsOptions
from bbframe.preprocessing import Preprocessing
from bbframe.report.page.finished_run import FinishedRun, read_run
from bbframe.report.page.html_page import page_text
from bbframe.report.page.run_page import subtitle_of, task_sections, title_of, write_run_page
from bbframe.report.page.run_sections import (
    asked_sections,
    curve_section,
    data_sections,
    duration,
    environment_section,
    rate_sections,
    result_section,
    weights_sections,
)
from tests.report.page.run_folders import run_folder

OVERRIDES = ["backbone.out_indices=[1,3]", "data.root=my photos/it's", "optim.lr=1e-3", "+x='$HOME `id` \"q\"'"]


@pytest.fixture
def folder(tmp_path):
    return run_folder(tmp_path / "run", ["a"], ["cat", "dog"], [(0, 0, 0, 0.9, 0.9)], overrides=OVERRIDES)


def test_the_command_gives_the_shell_what_was_asked(folder):
    asked, given, config = asked_sections(read_run(folder))
    assert shlex.split(asked.data["text"]) == ["python", "train.py", *OVERRIDES]
    assert given.data["facts"][2] == ["optim.lr", "1e-3"]
    assert "name: classification" in config.data["text"]
    assert config.data["summary"]


def test_a_masked_secret_is_said_to_be_missing(folder):
    run = FinishedRun(folder, overrides=["logger.wandb.api_key=***"])
    assert "Put the secrets back where *** stands" in asked_sections(run)[0].note
    assert "secrets" not in asked_sections(FinishedRun(folder))[0].note


def test_the_result_has_its_interval_and_its_epoch(folder):
    figures = result_section(read_run(folder)).data["figures"]
    assert figures[0] == {"label": "accuracy", "value": "1.0000", "detail": "test; 95 % interval 0.9000 to 1.1000"}
    assert {"label": "loss", "value": "0.5000", "detail": "test"} in figures
    assert {"label": "accuracy", "value": "0.7500", "detail": "validation, best epoch 2"} in figures
    assert {"label": "time", "value": "1 min 15 s", "detail": "fit 1 min 10 s, test 5.2 s"} in figures


def test_a_run_that_was_not_tested_says_so(folder):
    assert result_section(FinishedRun(folder)).note == "This run was not tested."


def test_the_curves_begin_with_the_loss_and_the_metric_and_mark_the_best(folder):
    run = read_run(folder)
    run.curves["val/top5"] = [(1, 0.5)]
    run.curves["lr-AdamW/pg1"] = [(1, 0.5)]
    (section,) = curve_section(run)
    loss, accuracy, top5 = section.data["charts"]
    assert [chart["title"] for chart in (loss, accuracy, top5)] == ["loss", "accuracy", "top5"]
    assert [(line["name"], line["points"]) for line in loss["series"]] == [
        ("training", [[1, 1.5], [2, 0.7]]),
        ("validation", [[1, 1.2], [2, 0.9]]),
    ]
    assert accuracy["marks"] == [{"x": 2, "text": "best: epoch 2"}]
    assert curve_section(FinishedRun(folder)) == []


@pytest.mark.parametrize(("losses", "log"), [([1.0, 0.5], False), ([9.0, 0.01], True), ([9.0, 0.0], False)])
def test_a_loss_that_falls_far_has_a_logarithmic_axis(folder, losses, log):
    run = FinishedRun(folder, curves={"val/loss": list(enumerate(losses, 1))})
    assert curve_section(run)[0].data["charts"][0]["y"]["log"] is log


def test_skipped_and_assumed_images_are_named(folder):
    data = make_data(DigitsOptions(name="digits"), seed=0, preprocessing=Preprocessing(), num_channels=3, stride=8)
    data.skipped["broken.png"] = "is cut off"
    data.assumed["EXIF that cannot be read"] = {f"{i}.png": None for i in range(7)}
    facts, skipped, assumed = data_sections(read_run(folder), data)
    assert ["training images", "1,259"] in facts.data["facts"]
    assert skipped.data["rows"] == [["broken.png", "is cut off"]]
    assert assumed.data["rows"] == [["EXIF that cannot be read", "0.png, 1.png, 2.png, 3.png, 4.png", 7]]


def test_weights_say_where_they_came_from_and_what_became_of_them(folder):
    weights = {"source": "org/net", "revision": "abc", "sha256": {"model.safetensors": "0f"}, "report": "3 loaded"}
    facts, report = weights_sections(FinishedRun(folder, environment={"weights": weights}))
    assert ["source", "org/net"] in facts.data["facts"]
    assert ["SHA-256 of model.safetensors", "0f"] in facts.data["facts"]
    assert report.data["text"] == "3 loaded"
    (fresh,) = weights_sections(FinishedRun(folder))
    assert "random" in fresh.data["facts"][0][1]
    (loaded,) = weights_sections(FinishedRun(folder, config={"ckpt_path": "old/last.ckpt"}))
    assert loaded.data["facts"] == [["weights", "the checkpoint old/last.ckpt"]]


def test_the_environment_says_hardware_versions_and_code(folder):
    found = {
        "hardware": {"cpu": "a chip", "gpus": []},
        "versions": {"torch": "2.9", "timm": None},
        "git": {"commit": "abc", "dirty": True},
        "plugins": [{"module": "mine"}],
    }
    facts = environment_section(FinishedRun(folder, environment=found, metrics={"seed": 3})).data["facts"]
    shown = [["CPU", "a chip"], ["GPUs", "none"], ["torch", "2.9"], ["commit", "abc and uncommitted changes"]]
    assert facts == [*shown, ["plugin", "mine"], ["seed", "3"]]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (60, "1 min 0 s"), (3599.7, "1 h 0 min"), (7500, "2 h 5 min")],
)
def test_a_time_reads_as_a_person_says_it(seconds, text):
    assert duration(seconds) == text


def test_a_run_of_any_task_has_a_page(folder, tmp_path):
    """A task of one's own leaves no predictions, a run that was killed leaves no metrics."""
    (folder / "predictions.csv").unlink()
    assert task_sections(read_run(folder), None, None, "") == []
    assert write_run_page(folder) == folder / "report.html"
    (folder / "metrics.json").unlink()
    write_run_page(folder)
    assert "this run has not ended" in (folder / "report.html").read_text()
    (folder / "config.yaml").write_text(json.dumps({"data": {"name": "digits"}, "backbone": {"model_type": "swin"}}))
    run = read_run(folder)
    assert title_of(run) == "swin on digits"
    assert "run" in subtitle_of(run)
    assert "swin on digits" in page_text(title_of(run), asked_sections(run))


def test_the_search_for_a_learning_rate_is_shown_where_there_was_one(folder):
    assert rate_sections(read_run(folder)) == []
    (folder / "pictures").mkdir()
    (folder / "pictures" / "learning_rate.png").write_bytes(b"a picture")
    (section,) = rate_sections(read_run(folder))
    assert section.data["source"] == "data:image/png;base64,YSBwaWN0dXJl"
    assert 'src="data:image/png;base64,YSBwaWN0dXJl"' in page_text("run", [section])


def test_a_run_that_failed_says_why(folder):
    (folder / "metrics.json").unlink()
    (folder / "error.txt").write_text("the training loss is nan\n")
    write_run_page(folder)
    text = (folder / "report.html").read_text()
    assert "this run failed" in text
    assert "the training loss is nan" in text
