"""Resuming: new optimizer options hold, the best epoch is found again, and a checkpoint is opened once."""

from __future__ import annotations

import os
import signal
import zipfile
from collections import Counter
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback

import bbframe.run.trainer as module
from bbframe import AutoBackbone
from bbframe.app import train
from tests.run.helpers import TINY, command, summary

SHORT = [
    *TINY,
    "data.batch_size=64",
    "data.num_workers=0",
    "trainer.limit_train_batches=2",
    "trainer.limit_val_batches=1",
    "trainer.limit_test_batches=1",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("resume")


@pytest.fixture(autouse=True)
def _at(place, monkeypatch):
    monkeypatch.chdir(place)


def command_with(callback: Callback, *overrides: str) -> Path:
    """A command whose training has one more callback."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "make_lightning_parts", lambda group, *_: [callback] if group == "callbacks" else [])
        return command(*overrides)


class Steps(Callback):
    """The optimizer's options and its state for each parameter, by its name, at the beginning of every step."""

    def __init__(self):
        self.options, self.states = {}, {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        names = {id(p): name for name, p in pl_module.named_parameters()}
        (optimizer,) = trainer.optimizers
        options, states = {}, {}
        for group in optimizer.param_groups:
            for p in group["params"]:
                options[names[id(p)]] = {key: value for key, value in group.items() if key != "params"}
                states[names[id(p)]] = {key: value.clone() for key, value in optimizer.state.get(p, {}).items()}
        self.options[trainer.global_step], self.states[trainer.global_step] = options, states


@pytest.fixture(scope="module", params=["adamw", pytest.param("sgd", marks=pytest.mark.slow)])
def stopped(request, place):
    """The kind of an optimizer, a command line of two epochs, and the checkpoint after the first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        line = [*SHORT, f"optim={request.param}", "schedule.warmup_epochs=0", "test=false"]
        folder = command(*line, "trainer.max_epochs=1")
        return request.param, line, folder / "checkpoints" / "last.ckpt"


CHANGES = [
    "optim.lr=0.002",
    "optim.weight_decay=0.3",
    "optim.backbone_lr=0.0005",
    "optim.layer_decay=0.5",
    "optim.betas=[0.7,0.8]",
    "optim.momentum=0.5",
]


@pytest.mark.long
@pytest.mark.parametrize("change", CHANGES)
def test_the_optimizer_goes_on_as_the_command_line_says(stopped, change):
    """Each parameter has the options that a fresh run would give it at this step, and the state of the checkpoint."""
    kind, line, checkpoint = stopped
    if change.startswith({"adamw": "optim.momentum", "sgd": "optim.betas"}[kind]):
        pytest.skip("no option of this optimizer")
    fresh, resumed = Steps(), Steps()
    command_with(fresh, *line, change)
    folder = command_with(resumed, f"ckpt_path={checkpoint}", "trainer.max_epochs=2", change)
    assert min(resumed.options) == 2
    assert resumed.options[2] == fresh.options[2]
    key = change.partition("=")[0].removeprefix("optim.")
    assert f"optimizer {key}=" in (folder / "train.log").read_text()
    saved = torch.load(checkpoint, weights_only=True)
    states = [state for _, state in sorted(saved["optimizer_states"][0]["state"].items())]
    before = dict(zip(saved["bbframe"]["parameter_names"], states, strict=True))
    torch.testing.assert_close(resumed.states[2], before, rtol=0, atol=0)


@pytest.mark.slow
def test_the_same_options_say_nothing_and_change_nothing(stopped):
    _, _, checkpoint = stopped
    folder = command(f"ckpt_path={checkpoint}", "trainer.max_epochs=2")
    assert "from here on" not in (folder / "train.log").read_text()


class Rates(Callback):
    """The learning rates that a checkpoint written before the first step would hold, and those of the optimizer."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        scheduler = trainer.lr_scheduler_configs[0].scheduler
        self.seen = scheduler.get_last_lr(), [group["lr"] for group in scheduler.optimizer.param_groups]
        self.on_train_batch_start = lambda *_: None


@pytest.mark.long
def test_a_checkpoint_before_the_first_resumed_step_holds_its_learning_rate(stopped):
    _, _, checkpoint = stopped
    rates = Rates()
    command_with(rates, f"ckpt_path={checkpoint}", "trainer.max_epochs=2", "optim.lr=0.002")
    assert rates.seen[0] == rates.seen[1]


@pytest.mark.slow
def test_another_optimizer_starts_without_state(stopped):
    kind, _, checkpoint = stopped
    other = {"adamw": "sgd", "sgd": "adamw"}[kind]
    folder = command(f"ckpt_path={checkpoint}", "trainer.max_epochs=2", f"optim={other}")
    assert f"optimizer {other} without the state of {kind} from here on" in (folder / "train.log").read_text()
    groups = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["optimizer_states"][0]["param_groups"]
    assert ("momentum" in groups[0]) is (other == "sgd")


class WorseSecondEpoch(Callback):
    """From the second epoch on every image looks like a 0."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == 1:
            next(p for name, p in pl_module.named_parameters() if name.endswith("bias") and len(p) == 10).data[0] = 1e3


@pytest.fixture(scope="module", params=[[], ["trainer.ema_decay=0.5"]], ids=["weights", "averaged weights"])
def finished(request, place):
    """A run of two epochs whose first was the best."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        folder = command_with(WorseSecondEpoch(), *TINY, *request.param)
        assert summary(folder)["best_epoch"] == 1
        return folder


@pytest.mark.long
def test_a_run_resumed_after_its_last_epoch_tests_the_best_one(finished):
    folder = command(f"ckpt_path={finished}/checkpoints/last.ckpt")
    again, before = summary(folder), summary(finished)
    assert {key: again[key] for key in ("val", "best_epoch", "test", "epochs")} == {
        key: before[key] for key in ("val", "best_epoch", "test", "epochs")
    }
    best = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    left = AutoBackbone.from_pretrained(folder / "backbone").state_dict()
    assert all(torch.equal(left[key], best[f"backbone.{key}"]) for key in left)
    log = (folder / "train.log").read_text()
    assert log.count("nothing is left to train: ") == 1
    assert "last.ckpt has done 2 epochs, 8 steps; trainer.max_epochs may be raised" in log


@pytest.mark.long
def test_more_epochs_keep_the_earlier_best_and_fewer_are_refused(finished, capsys):
    folder = command(f"ckpt_path={finished}/checkpoints/last.ckpt", "trainer.max_epochs=3", "optim.lr=1e-9")
    assert summary(folder)["best_epoch"] == summary(finished)["best_epoch"] == 1
    assert summary(folder)["test"] == summary(finished)["test"]
    assert "nothing is left to train" not in (folder / "train.log").read_text()
    assert train.main([f"ckpt_path={folder}/checkpoints/last.ckpt", "trainer.max_epochs=1"]) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: trainer: You restored a checkpoint with current_epoch=2")
    assert "\n" not in error


def copied(finished: Path, name: str) -> Path:
    """Another folder with the checkpoints of a run."""
    target = Path(name) / "checkpoints"
    target.mkdir(parents=True, exist_ok=True)
    for path in (finished / "checkpoints").iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


@pytest.mark.long
def test_without_its_best_checkpoint_a_finished_run_tests_its_last_weights(finished):
    checkpoints = copied(finished, "no_best")
    (checkpoints / "best.ckpt").unlink()
    folder = command(f"ckpt_path={checkpoints}/last.ckpt")
    assert (summary(folder)["val"], summary(folder)["best_epoch"]) == ({}, None)
    assert summary(folder)["test"] != summary(finished)["test"]
    assert "has no checkpoint of epoch 1, val/accuracy=" in (folder / "train.log").read_text()
    last = torch.load(checkpoints / "last.ckpt", weights_only=True)["state_dict"]
    left = AutoBackbone.from_pretrained(folder / "backbone").state_dict()
    assert all(torch.equal(left[key], last[f"backbone.{key}"]) for key in left)


@pytest.mark.long
def test_a_damaged_best_checkpoint_is_not_taken_over(finished, capsys):
    checkpoints = copied(finished, "damaged_best")
    data = bytearray((checkpoints / "best.ckpt").read_bytes())
    data[len(data) // 2] ^= 1
    (checkpoints / "best.ckpt").write_bytes(data)
    assert train.main([f"ckpt_path={checkpoints}/last.ckpt", "trainer.max_epochs=3"]) == 1
    error = capsys.readouterr().err.strip()
    assert "best.ckpt is damaged" in error
    assert "\n" not in error


@pytest.fixture
def opened(monkeypatch):
    """How often each checkpoint file has been loaded and compared with its checksums."""
    counts: Counter = Counter()
    load, testzip = torch.load, zipfile.ZipFile.testzip

    def counted_load(file, *args, **kwargs):
        counts["load", Path(file).name] += 1
        return load(file, *args, **kwargs)

    def counted_test(archive):
        counts["check", Path(archive.filename).name] += 1
        return testzip(archive)

    monkeypatch.setattr(torch, "load", counted_load)
    monkeypatch.setattr(zipfile.ZipFile, "testzip", counted_test)
    return counts


@pytest.mark.long
@pytest.mark.parametrize("change", [[], ["trainer.max_epochs=3"], ["train=false"]])
def test_a_run_opens_and_checks_its_checkpoint_once(finished, opened, change):
    checkpoints = copied(finished, "opened")
    command(f"ckpt_path={checkpoints}/last.ckpt", *change)
    assert opened["load", "last.ckpt"] == opened["check", "last.ckpt"] == 1


class Requeue(Callback):
    """Slurm's signal before the time limit."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 1:
            os.kill(os.getpid(), signal.SIGUSR1)


@pytest.mark.long
def test_under_slurm_checkpoints_of_lightnings_are_neither_written_nor_read(tmp_path, monkeypatch, capsys):
    """Lightning resumes from the newest hpc_ckpt_*.ckpt of its root folder, and Slurm's signal writes one there."""
    variables = {"NTASKS": "1", "JOB_NAME": "train", "JOB_ID": "7", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    for name, value in variables.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "scontrol").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    (tmp_path / "bin" / "scontrol").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    planted = [tmp_path / "hpc_ckpt_1.ckpt", tmp_path / "run" / "hpc_ckpt_1.ckpt"]
    for file in planted:
        file.write_bytes(b"of another run")
    line = [*SHORT, "trainer.max_epochs=1", "hydra.run.dir=run"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "make_lightning_parts", lambda group, *_: [Requeue()] if group == "callbacks" else [])
        assert train.main(line) == 75
    assert (tmp_path / "asked").read_text() == "requeue 7\n"
    assert torch.load("run/checkpoints/last.ckpt", weights_only=True)["global_step"] == 2
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert train.main(line) == 0
    assert summary(tmp_path / "run")["epochs"] == 1
    assert "goes on from run/checkpoints/last.ckpt, after 2 optimizer steps" in Path("run/train.log").read_text()
    capsys.readouterr()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    assert train.main(line) == 0
    assert "this run has ended well, and is not repeated" in capsys.readouterr().out
    assert sorted(tmp_path.rglob("hpc_ckpt_*")) == sorted(planted)
    assert all(file.read_bytes() == b"of another run" for file in planted)
