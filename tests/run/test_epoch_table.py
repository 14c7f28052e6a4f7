"""metrics.csv: a row an epoch, whatever is logged when."""

import csv
import os

import pytest

from bbframe.run.epoch_table import EpochTable


def rows(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def log_epoch(table, epoch, loss):
    """What Lightning logs in an epoch of two steps: a rate, values within it, the validation, the training."""
    table.log_metrics({"lr": 0.5 / (epoch + 1)}, step=2 * epoch)
    table.log_metrics({"train/step": loss + 1, "epoch": epoch}, step=2 * epoch)
    table.log_metrics({"lr": 0.25 / (epoch + 1)}, step=2 * epoch + 1)
    table.log_metrics({"val/loss": loss, "epoch": epoch}, step=2 * epoch + 1)
    table.log_metrics({"train/loss": 2 * loss, "epoch": epoch}, step=2 * epoch + 1)


def test_all_values_of_an_epoch_are_in_its_row_as_they_were_last(tmp_path):
    table = EpochTable(tmp_path)
    for epoch in range(2):
        log_epoch(table, epoch, 1.0 - epoch / 2)
    assert rows(tmp_path) == [
        {"epoch": "1", "step": "2", "lr": "0.25", "train/loss": "2.0", "train/step": "2.0", "val/loss": "1.0"},
        {"epoch": "2", "step": "4", "lr": "0.125", "train/loss": "1.0", "train/step": "1.5", "val/loss": "0.5"},
    ]


def test_an_epoch_that_was_not_validated_has_empty_cells(tmp_path):
    table = EpochTable(tmp_path)
    table.log_metrics({"train/loss": 1.0, "epoch": 0}, step=1)
    table.log_metrics({"val/loss": 0.5, "epoch": 1}, step=3)
    table.log_metrics({"train/loss": float("nan"), "epoch": 1}, step=3)
    assert [row["val/loss"] for row in rows(tmp_path)] == ["", "0.5"]
    assert rows(tmp_path)[1]["train/loss"] == "nan"


def test_what_is_logged_once_the_training_has_ended_is_of_no_epoch(tmp_path):
    table = EpochTable(tmp_path)
    log_epoch(table, 0, 1.0)
    table.finalize("success")
    table.log_metrics({"test/loss": 0.1, "epoch": 1}, step=2)
    table.finalize("success")
    assert [row["epoch"] for row in rows(tmp_path)] == ["1"]
    assert "test/loss" not in rows(tmp_path)[0]


def test_a_test_alone_leaves_no_table(tmp_path):
    table = EpochTable(tmp_path, open=False)
    table.log_metrics({"test/loss": 0.1, "epoch": 0}, step=0)
    table.finalize("success")
    assert not (tmp_path / "metrics.csv").exists()


@pytest.mark.parametrize("steps", [1, 3])
def test_a_table_that_goes_on_is_the_one_that_nothing_ended(tmp_path, steps):
    """It is handed over in the middle of the second epoch, whose rate waits for a value with an epoch."""
    whole, first, second = (EpochTable(tmp_path / name) for name in ("whole", "first", "second"))
    for table in (whole, first):
        log_epoch(table, 0, 1.0)
        table.log_metrics({"lr": 0.1}, step=2)
    second.go_on_from(first.rows, first.waiting)
    assert [row["epoch"] for row in rows(tmp_path / "second")] == ["1"]
    first.log_metrics({"val/loss": 9.0, "epoch": 1}, step=3)  # after the checkpoint
    for table in (whole, second):
        for step in range(2, 2 + steps):
            table.log_metrics({"val/loss": 0.25, "epoch": 1}, step=step)
    assert rows(tmp_path / "second") == rows(tmp_path / "whole")
    assert rows(tmp_path / "second")[1]["lr"] == "0.1"


def test_the_file_follows_every_epoch_also_when_all_log_the_same(tmp_path):
    table = EpochTable(tmp_path)
    for epoch in range(3):
        table.log_metrics({"train/loss": 1.0 / (epoch + 1), "epoch": epoch}, step=epoch)
        assert [row["epoch"] for row in rows(tmp_path)] == [str(i + 1) for i in range(epoch + 1)]


def test_the_file_is_written_when_a_row_gets_a_column_and_not_in_every_step(tmp_path, monkeypatch):
    moves = []
    monkeypatch.setattr(os, "replace", lambda a, b, real=os.replace: (moves.append(b), real(a, b)))
    table = EpochTable(tmp_path)
    for step in range(100):
        table.log_metrics({"lr": 0.1}, step=step)
        table.log_metrics({"train/step": float(step), "epoch": 0}, step=step)
    assert len(moves) == 1
    table.finalize("failed")
    assert rows(tmp_path) == [{"epoch": "1", "step": "100", "lr": "0.1", "train/step": "99.0"}]
