"""A sweep whose processes are all killed at random moments and which is resumed: nothing repeated, nothing lost."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from bbframe.app import train

KILLS = 30
SWEEP = (
    "-m seed=1,2 optim.lr=0.01,0.02 backbone=resnet18 backbone.depths=[1,1,1,1] backbone.hidden_sizes=[8,8,16,16] "
    "backbone.embedding_size=8 data.batch_size=64 trainer.limit_train_batches=6 trainer.limit_val_batches=2 "
    "trainer.limit_test_batches=2 trainer.max_epochs=3 trainer.checkpoint_every=2 hydra.sweep.dir=s"
).split()
PRELOADED = ["bbframe.run.training_run", "bbframe.app.application", "bbframe.sweep.leaderboard"]


def sweep(folder: Path, arguments: list[str]) -> None:
    """Run a sweep in a session of its own, whose output goes to a file."""
    os.setsid()
    os.chdir(folder)
    with open("said.txt", "a") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
        sys.exit(train.main(arguments))


@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    first = context.Process(target=os.getpid)  # the server imports what it preloads before it starts one
    first.start()
    first.join()
    return context


def finished(folder: Path) -> dict[str, int]:
    """When each result was written."""
    return {file.parent.name: file.stat().st_mtime_ns for file in (folder / "s").glob("*/metrics.json")}


def results(folder: Path) -> dict[str, object]:
    """What each job has reached, in all epochs and in the test."""
    found = {}
    for file in sorted((folder / "s").glob("*/metrics.json")):
        result = json.loads(file.read_text())
        with (file.parent / "metrics.csv").open() as table:
            rows = [{k: v for k, v in row.items() if "seconds" not in k} for row in csv.DictReader(table)]
        scores = {key: result[key] for key in ("val", "test", "best_epoch", "epochs", "test_sha256")}
        found[" ".join(result["overrides"])] = (scores, rows)
    return found


@pytest.mark.slow
def test_nothing_is_repeated_or_lost_however_often_a_sweep_is_killed(processes, tmp_path):
    whole = tmp_path / "whole"
    whole.mkdir()
    started = time.monotonic()
    undisturbed = processes.Process(target=sweep, args=(whole, SWEEP))
    undisturbed.start()
    undisturbed.join()
    span = time.monotonic() - started
    assert undisturbed.exitcode == 0
    expected, table = results(whole), (whole / "s" / "leaderboard.csv").read_text().splitlines()
    assert len(expected) == 4

    moments = random.Random(14)
    kills = attempts = 0
    while kills < KILLS:
        folder = tmp_path / str(attempts)
        folder.mkdir()
        attempts += 1
        done: dict[str, int] = {}
        command = SWEEP
        while True:
            process = processes.Process(target=sweep, args=(folder, command))
            process.start()
            process.join(moments.uniform(0, span * 0.6))
            if process.exitcode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.join()
                kills += 1
            now = finished(folder)
            assert done.items() <= now.items(), "a result was written again or lost"
            done = now
            if process.exitcode == 0:
                break
            if (folder / "s" / "sweep.yaml").exists():
                command = moments.choice([SWEEP, ["resume=s"]])
        assert results(folder) == expected
        rows = (folder / "s" / "leaderboard.csv").read_text().splitlines()
        assert [row.split(",")[:1] for row in rows] == [row.split(",")[:1] for row in table]
