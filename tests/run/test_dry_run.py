"""A dry run says what a run would take, and leaves nothing behind."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from bbframe.app import train
from bbframe.run.dry_run import BatchSeconds, _data_bytes, _time, dry_run_table, size_text, time_text
from tests.run.helpers import TINY
from tests.run.trial import built


@pytest.fixture(autouse=True)
def _at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.long
def test_a_dry_run_says_what_a_run_would_take(tmp_path, capsys):
    assert train.main([*TINY, "--dry-run"]) == 0
    told = capsys.readouterr().out
    for line in (
        "backbone       convnextv2_atto",
        "weights        fresh",
        "0.03 M of them trained",
        "in batches of 256",
    ):
        assert line in told
    for name in ("memory", "time an epoch", "time in all", "disk", "data"):
        assert f"\n{name} " in told
    assert "for 2 epochs" in told
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_is_plain_data_too(tmp_path, capsys):
    assert train.main([*TINY, "--dry-run", "--json", "optim.lr=auto", "trainer.max_epochs=3"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["train_batches"] == 1259 // 256
    assert facts["val_batches"] == math.ceil(269 / 256)
    assert facts["seconds"] == pytest.approx(3 * facts["seconds_epoch"], abs=0.1)
    assert facts["checkpoint_bytes"] > facts["weights_bytes"] > 4 * facts["params"] * 0.9
    assert facts["lr_sought"]
    assert "the search for optim.lr, 120 steps at most" in dry_run_table(facts)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("-m --dry-run", "--multirun and --dry-run exclude each other"),
        ("--dry-run seed=1,2", "--dry-run is for one run, and seed=1,2 makes a sweep; give one value"),
        ("--json", "--json belongs to --dry-run"),
        ("--dry-run data=image_folder data.root=nowhere", "nowhere"),
        ("--dry-run backbone.num_channels=7", "num_channels"),
    ],
)
def test_what_a_dry_run_refuses_is_one_line(line, said, tmp_path, capsys):
    assert train.main(line.split()) == 1
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("seconds", "text"), [(1.5, "1.5 s"), (300, "5 min"), (36000, "10 h"), (864000, "10 days"), (math.inf, "no end")]
)
def test_times_are_read_at_a_glance(seconds, text):
    assert time_text(seconds) == text


@pytest.mark.parametrize(("size", "text"), [(12, "12 B"), (2048, "2 KiB"), (3 * 2**30, "3 GiB"), (2**42, "4 TiB")])
def test_sizes_are_read_at_a_glance(size, text):
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("options", "epochs", "train_batches", "seconds"),
    [
        ({}, 10, 78, 10 * (78 * 0.1 + 17 * 0.05)),
        ({"limit_train_batches": 8, "limit_val_batches": 0.5}, 10, 8, 10 * (8 * 0.1 + 8 * 0.05)),
        ({"max_steps": 39, "accumulate_grad_batches": 2}, 1, 78, 78 * 0.1 + 17 * 0.05),
        ({"check_val_every_n_epoch": 2}, 10, 78, 10 * (78 * 0.1 + 17 * 0.05 / 2)),
    ],
)
def test_the_time_follows_the_options(options, epochs, train_batches, seconds):
    plan, _, _, data = built()
    plan = replace(plan, trainer=replace(plan.trainer, **options))
    times = BatchSeconds()
    times.train, times.val = [3.0, 0.1], [2.0, 0.05]
    facts = _time(plan, data, times)
    assert (facts["epochs"], facts["train_batches"]) == (epochs, train_batches)
    assert facts["seconds"] == pytest.approx(seconds, abs=0.06)
    assert _time(plan, data, times, done=10)["seconds"] == 0  # of a run that goes on after its last epoch


def test_the_files_of_the_images_are_weighed(tmp_path):
    for index in range(3):
        (tmp_path / str(index)).write_bytes(b"x" * 100)
    data = SimpleNamespace(counts={"train": 2, "val": 1}, source=lambda part, index: tmp_path / str(index))
    assert _data_bytes(data) == 300
