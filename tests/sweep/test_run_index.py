"""Every run below a folder is found, read once, and read again when its files have changed."""

import json
import math
import os

import pytest

from bbframe.sweep import run_index
from bbframe.sweep.run_index import INDEX, read_runs
from tests.sweep.run_folders import run_folder, summary


@pytest.fixture
def outputs(tmp_path):
    run_folder(tmp_path / "classification", "one", summary("resnet", 0.9, class_f1={"a": 0.5}))
    run_folder(tmp_path / "sweep", "0_swin", summary("swin", 0.8), config={"optim": {"lr": 0.1}, "seed": 7})
    run_folder(tmp_path / "sweep", "1_swin", "no memory\nTraceback", ["backbone=swin"])
    run_folder(tmp_path / "sweep", "2_swin", None, ["backbone=swin"])
    run_folder(tmp_path / "sweep" / "0_swin", "checkpoints", summary())  # inside of a run: none of its own
    run_folder(tmp_path / ".hidden", "x", summary())
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text("seed: 0\n")
    (tmp_path / "loop").symlink_to(tmp_path)
    return tmp_path


@pytest.fixture
def opened(monkeypatch):
    """The run folders that were read, and not taken from the index."""
    folders = []
    read = run_index.read_run_folder
    monkeypatch.setattr(run_index, "read_run_folder", lambda folder: (folders.append(folder.name), read(folder))[1])
    return folders


def test_runs_are_found_wherever_they_lie_with_status_and_reason(outputs):
    runs = {run["folder"]: run for run in read_runs(outputs)}
    assert [(name, run["status"], run.get("error")) for name, run in runs.items()] == [
        ("classification/one", "ok", None),
        ("sweep/0_swin", "ok", None),
        ("sweep/1_swin", "failed", "no memory"),
        ("sweep/2_swin", "unfinished", "no metrics.json: still running, or killed"),
    ]
    one = runs["classification/one"]
    assert (one["test.accuracy"], one["test"], one["val"], one["seconds.fit"]) == (0.9, 0.9, 0.91, 10)
    assert not any(key.startswith("class_f1") for key in one)


def test_a_run_is_read_once_and_again_after_a_change(outputs, opened):
    first = read_runs(outputs)
    assert len(opened) == 4
    assert read_runs(outputs) == first
    assert len(opened) == 4
    (outputs / "sweep" / "2_swin" / "metrics.json").write_text(json.dumps(summary("swin", 0.7)))
    again = {run["folder"]: run for run in read_runs(outputs)}
    assert opened[4:] == ["2_swin"]
    assert again["sweep/2_swin"]["test.accuracy"] == 0.7
    (outputs / "classification" / "one" / "metrics.json").unlink()
    (outputs / "classification" / "one" / "overrides.yaml").unlink()
    assert "classification/one" not in {run["folder"] for run in read_runs(outputs)}


def test_configurations_are_read_when_they_are_asked_for_and_metrics_win(outputs, opened):
    read_runs(outputs)
    runs = {run["folder"]: run for run in read_runs(outputs, configs=True)}
    assert len(opened) == 4
    assert runs["sweep/0_swin"]["optim.lr"] == 0.1
    assert runs["sweep/0_swin"]["seed"] == 1
    assert "optim.lr" not in read_runs(outputs)[1]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"version": 1}',
        '{"version": 0, "runs": {}}',
        '{"version": 1, "runs": []}',
        '{"version": 1, "runs": {"classification/one": 3}}',
        '{"version": 1, "runs": {"classification/one": {"signature": [], "run": {"status": 3}}}}',
        '{"version": 1, "runs": {"x": {"signature": [], "run": {"status": "ok"}, "config": []}}}',
        "[" * 100_000,
        "\0\1",
    ],
)
def test_a_damaged_index_is_ignored_and_written_again(outputs, opened, text):
    sound = read_runs(outputs)
    (outputs / INDEX).write_text(text)
    assert read_runs(outputs) == sound
    assert len(opened) == 8
    assert read_runs(outputs) == sound
    assert len(opened) == 8


def test_an_index_that_cannot_be_written_changes_nothing(outputs, opened, monkeypatch):
    def refuse(path, text):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(run_index, "write_text", refuse)
    assert len(read_runs(outputs)) == 4
    assert not (outputs / INDEX).exists()


def test_a_folder_that_may_not_be_read_hides_no_other_run(outputs, monkeypatch):
    scan = os.scandir

    def scandir(path):
        if str(path).endswith("sweep"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert [run["folder"] for run in read_runs(outputs)] == ["classification/one"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "metrics.json has no status"),
        ('{"status": 3}', "metrics.json has no status"),
        ('{"status": "ok", "best": [1]}', "best and test must be mappings"),
        ('{"status": "ok", "test": {"accuracy": "high"}}', "test must map names to numbers"),
        ('{"status": "ok", "overrides": 1}', "overrides must be a list"),
        ("{", "Expecting property name"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_a_broken_record_is_a_failed_run(tmp_path, text, said):
    run_folder(tmp_path, "a", None, [])
    (tmp_path / "a" / "metrics.json").write_text(text)
    (run,) = read_runs(tmp_path)
    assert run["status"] == "failed"
    assert said in run["error"]


def test_what_is_no_finite_number_is_null(tmp_path):
    run_folder(tmp_path, "a", summary(accuracy=math.nan))
    (run,) = read_runs(tmp_path)
    assert run["test.accuracy"] is None
    assert run["val.accuracy"] is None


def test_a_run_of_an_earlier_version_is_read_as_one_of_this_version(tmp_path):
    old = {
        "status": "ok",
        "metric": "val/loss",
        "best": {"metric": "val/loss", "value": 0.5, "epoch": 3},
        "test": {"test/loss": 0.6, "test/accuracy": 0.9},
        "overrides": [],
    }
    run_folder(tmp_path, "a", old)
    run_folder(tmp_path, "b", {**old, "best": None, "test": None})
    first, second = read_runs(tmp_path)
    assert (first["metric"], first["mode"], first["val"], first["test"], first["best_epoch"]) == (
        "loss",
        "min",
        0.5,
        0.6,
        3,
    )
    assert first["test.accuracy"] == 0.9
    assert (second["status"], second["metric"]) == ("ok", "loss")
    assert "val" not in second
