"""Faults as machines have them: each leaves one line that names the file, and a run that goes on exactly."""

from __future__ import annotations

import csv
import errno
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback

import bbframe.run.lightning_checkpoints as checkpoints
import bbframe.run.results as results
import bbframe.run.trainer as module
from bbframe.app import train
from bbframe.app.places import PACKAGE
from bbframe.data.batch_loader import BatchLoader, Skipped
from bbframe.data.images.image_batches import ImageBatches
from bbframe.data.images.image_transforms import eval_transform
from bbframe.files import PART, atomic, remove_parts
from bbframe.preprocessing import Preprocessing
from bbframe.run.configuration import TrainerOptions
from tests.data.test_loader import Noise
from tests.run.helpers import TINY, command, summary

SHORT = [
    *(*TINY, "data.batch_size=64", "data.num_workers=0", "trainer.limit_train_batches=2"),
    *("trainer.limit_val_batches=1", "trainer.limit_test_batches=1"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(autouse=True)
def _at(place, monkeypatch):
    monkeypatch.chdir(place)


@pytest.fixture(scope="module")
def finished(place):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        return command(*SHORT)


def refused(capsys, *overrides):
    """The one line by which a command is refused."""
    capsys.readouterr()
    assert train.main(list(overrides)) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert "\n" not in error
    return error


def the_latest():
    return max(Path("outputs").rglob("train.log"), key=lambda path: path.stat().st_mtime_ns).parent


@pytest.mark.long
def test_a_run_folder_names_its_checkpoint(finished):
    longer = command(f"ckpt_path={finished}", "trainer.max_epochs=3")
    assert summary(longer)["epochs"] == 3
    tested = command(f"ckpt_path={finished}", "train=false")
    assert summary(tested)["test"] == summary(finished)["test"]
    assert f"ckpt_path: {finished}/checkpoints/best.ckpt" in (tested / "config.yaml").read_text()


def test_a_run_folder_without_a_checkpoint_says_what_to_type(finished, capsys, tmp_path):
    (tmp_path / "config.yaml").write_text((finished / "config.yaml").read_text())
    error = refused(capsys, f"ckpt_path={tmp_path}")
    assert f"ckpt_path={tmp_path}: the run left no checkpoint" in error
    assert f"rerun={tmp_path}" in error


MISSING = ["state_dict", "epoch", "global_step", "loops", "callbacks", "optimizer_states", "lr_schedulers", "bbframe"]


@pytest.mark.long
@pytest.mark.parametrize("key", MISSING)
def test_an_incomplete_checkpoint_is_refused_by_what_it_lacks(finished, capsys, tmp_path, key):
    content = torch.load(finished / "checkpoints" / "last.ckpt", weights_only=True)
    del content[key]
    torch.save(content, tmp_path / "part.ckpt")
    error = refused(capsys, *SHORT, f"ckpt_path={tmp_path}/part.ckpt")
    assert str(tmp_path / "part.ckpt") in error
    assert repr(key) in error or key == "bbframe"


@pytest.mark.long
def test_going_on_for_longer_is_two_more_epochs_at_an_explained_rate(finished):
    folder = command(f"ckpt_path={finished}", "trainer.max_epochs=4")
    assert summary(folder)["epochs"] == 4
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 8
    told = (folder / "train.log").read_text()
    assert "schedule  the learning rate goes on at 0.00" in told
    assert "the schedule now spans trainer.max_epochs=4 (was 2), max_steps=-1 (was -1)" in told
    rows, before = history(folder), history(finished)
    assert [row["epoch"] for row in rows if row["val/loss"] and row["train/loss"]] == ["1", "2", "3", "4"]
    assert rows[: len(before)] == before  # the history of the earlier run comes first


def history(folder):
    """The rows of metrics.csv."""
    return list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))


@pytest.mark.slow
def test_after_an_epoch_a_run_goes_on_with_another_batch_size(finished):
    """The schedule then is where it would be, had all epochs had the new number of steps."""
    line = ["data.batch_size=32", "trainer.limit_train_batches=null", "trainer.max_epochs=3"]
    whole = command(*SHORT, "trainer.limit_train_batches=null")
    folder = command(f"ckpt_path={whole}", *line)
    now, then = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (folder, whole))
    rate = now["lr_schedulers"][0]["last_epoch"]
    now, then = (next(v for v in saved.values() if isinstance(v, dict) and "batches" in v) for saved in (now, then))
    assert now["epoch_batches"] in (2 * then["epoch_batches"], 2 * then["epoch_batches"] + 1)
    assert now["batches"] == 3 * now["epoch_batches"]
    assert rate == 3 * now["epoch_batches"]


@pytest.mark.parametrize("value", ["5", "1", "10min", "0.5 min", "3m", "2 minutes"])
def test_checkpoint_every_takes_steps_and_minutes(value):
    assert TrainerOptions(checkpoint_every=value).interval


@pytest.mark.parametrize(
    ("value", "seconds"), [("90s", 90), ("30m", 1800), ("10min", 600), ("2h", 7200), ("1.5 hours", 5400)]
)
def test_checkpoint_every_takes_a_time(value, seconds):
    assert TrainerOptions(checkpoint_every=value).interval == timedelta(seconds=seconds)


@pytest.mark.parametrize("value", [0, -1, "0", "0min", "min", "5d", "-3min", "1e3", "nan", ""])
def test_checkpoint_every_refuses_anything_else(value):
    with pytest.raises(ValueError, match=r"trainer: checkpoint_every=.* such as 500, or of minutes, such as 10min"):
        TrainerOptions(checkpoint_every=value)


@pytest.mark.long
def test_a_full_disk_is_one_line_and_costs_no_checkpoint(capsys, monkeypatch):
    saves = []

    def full(checkpoint, file):
        saves.append(file.name)
        if len(saves) > 2:  # best and last of the first epoch
            try:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos")  # noqa: B904
        real(checkpoint, file)

    real = torch.save
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.torch, "save", full)
        error = refused(capsys, *SHORT)
    folder = the_latest()
    assert "No space left on device; make room, or give another output_dir" in error
    assert str(folder / "checkpoints" / "best.ckpt") in error or str(folder / "checkpoints" / "last.ckpt: ") in error
    assert f"this goes on: ckpt_path={folder}/checkpoints/last.ckpt" in error
    assert (folder / "error.txt").read_text().strip() == error.removeprefix("error: ")
    assert summary(command(f"ckpt_path={folder}"))["epochs"] == 2


@pytest.mark.long
def test_metrics_json_says_ok_only_when_all_the_rest_is_written(capsys, monkeypatch):
    def broken(*_):
        raise RuntimeError("no picture")

    monkeypatch.setattr(results, "write_classification_report", broken)
    assert train.main([*SHORT]) == 1
    assert not (the_latest() / "metrics.json").exists()


def test_what_killed_writers_leave_is_removed_and_what_living_ones_write_is_not(tmp_path):
    (tmp_path / f".last.ckpt{PART}").write_text("half")
    with atomic(tmp_path / "best.ckpt") as part:
        part.write_text("new")
        remove_parts(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [part.name]
    assert (tmp_path / "best.ckpt").read_text() == "new"


class KillWorker(Callback):
    """Kill or stop a worker in the second epoch."""

    def __init__(self, number):
        self.number = number

    def on_train_batch_end(self, trainer, *_):
        if trainer.current_epoch == 1:
            os.kill(trainer.datamodule._train._loader._iterator._workers[0].pid, self.number)
            time.sleep(0.2)


@pytest.mark.long
def test_a_killed_worker_is_one_line(capsys, monkeypatch):
    parts = [KillWorker(signal.SIGKILL)]
    monkeypatch.setattr(module, "make_lightning_parts", lambda group, *_: parts if group == "callbacks" else [])
    error = refused(capsys, *SHORT, "data.num_workers=1", "trainer.limit_train_batches=null")
    assert "DataLoader worker" in error
    assert "ckpt_path=" in error


class Stopping(Noise):
    """Reading an image stops the process that reads it."""

    def read(self, index):
        os.kill(os.getpid(), signal.SIGSTOP)


@pytest.mark.long
def test_a_stopped_worker_keeps_no_process_alive():
    batches = ImageBatches(Stopping(1), eval_transform(Preprocessing(), 3), torch.zeros(3), torch.ones(3))
    loader = BatchLoader(batches, [[(0, 0)]], Skipped(0), num_workers=1, timeout=1)
    iterator = iter(loader)
    workers = []
    close = loader.close
    loader.close = lambda **how: (workers.extend(loader._loader._iterator._workers), close(**how))
    with pytest.raises(ValueError, match="1 workers gave no batch for 1 s"):
        next(iterator)
    workers[0].join(5)
    assert not workers[0].is_alive()


SIGNALLED = """
import os, signal, sys, threading
from bbframe.app import train
from bbframe.app.places import PACKAGE
import bbframe.run.training_run as module

def act(*_, **__):
    os.kill(os.getpid(), getattr(signal, sys.argv[1]))

setattr(module, sys.argv[2], act)
sys.exit(train.main(sys.argv[3:]))
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "step", "code"),
    [("SIGTERM", "make_data", 75), ("SIGHUP", "write_results", 129), ("SIGUSR1", "write_results", 75)],
)
def test_a_signal_outside_of_training_ends_the_run_at_once(tmp_path, name, step, code):
    """While the data are scanned and while the pictures are written; a scheduler's asks to be started again."""
    line = [*SHORT, "trainer.max_epochs=1", f"hydra.run.dir={tmp_path}/run"]
    call, env = [sys.executable, "-c", SIGNALLED, name, step, *line], {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(call, capture_output=True, text=True, env=env)
    assert done.returncode == code
    assert done.stdout.strip().splitlines()[-1].startswith("interrupted")
    assert ("ckpt_path=" in done.stdout) is (step == "write_results")
    assert f"interrupted by {name}" in (tmp_path / "run" / "error.txt").read_text()
