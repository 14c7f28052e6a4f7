"""A training that is ended at any moment and resumed is the training that nothing disturbed, to the last bit."""

from __future__ import annotations

import csv
import functools
import os
import signal
import tempfile
from datetime import timedelta
from pathlib import Path

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback, LearningRateMonitor

from bbframe.run.epoch_table import EpochTable
from bbframe.run.lightning_checkpoints import AtomicCheckpointIO, checkpoint_callbacks
from bbframe.run.resume import AveragedWeights, ResumedEarlyStopping
from bbframe.run.run_log import EpochLines
from bbframe.run.stop_signals import Interrupted, signals_raised
from bbframe.run.trainer import SeedEveryBatch
from tests.data.test_loader import BATCHES, noise

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),  # Lightning's use of torch
    pytest.mark.filterwarnings("ignore:Experiment logs directory"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
]


class Plug:
    """Does `act` once, at the visit number `visit` of a `place`; `act` is a signal or an exception."""

    def __init__(self, place=None, visit=0, act=None):
        self.place, self.left, self.act = place, visit, act

    def at(self, place):
        if place != self.place:
            return
        self.left -= 1
        if self.left == 0:
            if isinstance(self.act, signal.Signals):
                os.kill(os.getpid(), self.act)
            else:
                raise self.act


class Net(lightning.LightningModule):
    """A classifier with running statistics, dropout and running means, whose accuracy is best in the second epoch."""

    def __init__(self, plug, lr=0.05):
        super().__init__()
        torch.manual_seed(0)
        layers = [torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Dropout(0.2), torch.nn.ReLU()]
        self.net = torch.nn.Sequential(
            *layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 2)
        )
        self.plug, self.lr = plug, lr

    def training_step(self, batch, batch_idx):
        self.plug.at("before")
        loss = torch.nn.functional.cross_entropy(self.net(batch["image"]), batch["label"])
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(batch["image"]))
        self.plug.at("step")
        return loss

    def on_before_zero_grad(self, optimizer):
        self.plug.at("backward")

    def validation_step(self, batch, batch_idx):
        self.plug.at("validation")
        loss = torch.nn.functional.cross_entropy(self.net(batch["image"]), batch["label"])
        self.log("val/loss", loss, batch_size=len(batch["image"]))
        self.log("val/accuracy", -abs(self.current_epoch - 1.0), batch_size=len(batch["image"]))

    def on_validation_epoch_end(self):
        self.plug.at("validated")

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class Hooks(Callback):
    """Visits the moments between the steps."""

    def __init__(self, plug):
        self.plug = plug

    def on_train_epoch_start(self, *_):
        self.plug.at("epoch start")

    def on_train_batch_end(self, *_):
        self.plug.at("batch end")

    def on_validation_start(self, *_):
        self.plug.at("validation start")

    def on_train_epoch_end(self, *_):
        self.plug.at("epoch end")


SETTINGS = {
    "plain": {},
    "accumulation": {"accumulate_grad_batches": 2},
    "average": {"ema_decay": 0.8},
    "everything": {"accumulate_grad_batches": 2, "ema_decay": 0.8, "early_stopping": 1, "every": 1, "max_epochs": 6},
    "seldom validated": {"check_val_every_n_epoch": 2, "early_stopping": 3, "max_epochs": 4},
    "steps": {"max_epochs": -1, "max_steps": 12},
    "within an epoch": {"val_check_interval": 2, "ema_decay": 0.8, "every": 1},
    "every minute": {"every": timedelta(microseconds=1), "ema_decay": 0.8},
}


def fit(folder, setting, plug=None, resume=None):
    """Train in a folder; the trainer."""
    options, plug = {"max_epochs": 3, **SETTINGS[setting]}, plug or Plug()
    callbacks = [SeedEveryBatch(3)]
    if decay := options.pop("ema_decay", None):
        callbacks.append(AveragedWeights(decay=decay))
    callbacks += checkpoint_callbacks(folder, "val/accuracy", "max", options.pop("every", None))
    if patience := options.pop("early_stopping", None):
        callbacks.append(ResumedEarlyStopping("val/accuracy", mode="max", patience=patience))
    trainer = lightning.Trainer(
        accelerator="cpu",
        logger=EpochTable(folder),
        log_every_n_steps=1,
        callbacks=[*callbacks, Hooks(plug), EpochLines(), LearningRateMonitor()],
        plugins=[AtomicCheckpointIO()],
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **options,
    )
    with signals_raised():
        trainer.fit(Net(plug), noise(), ckpt_path=resume, weights_only=True)
    return trainer


def load(folder, name):
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)


@functools.cache
def whole(setting):
    """What a run leaves that nothing disturbs: its checkpoints and its history."""
    folder = Path(tempfile.mkdtemp())
    fit(folder, setting)
    return left(folder)


def left(folder):
    kept = ("epoch", "global_step", "state_dict", "current_model_state", "optimizer_states", "lr_schedulers")
    checkpoints = {name: {key: load(folder, name).get(key) for key in kept} for name in ("best", "last")}
    return checkpoints, list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))


PLACES = {
    "before": BATCHES + 3,
    "step": BATCHES + 2,
    "backward": 2 * BATCHES,
    "batch end": BATCHES + 1,
    "validation start": 2,
    "validation": 3,
    "validated": 2,
    "epoch end": 2,
    "epoch start": 3,
}
ACTS = [signal.SIGTERM, signal.SIGINT, OSError("a picture cannot be read")]


def check_resumed(folder, setting, plug):
    """Train until the plug, then resume: from last.ckpt, or from the beginning where there is none yet."""
    with pytest.raises((SystemExit, KeyboardInterrupt, OSError)):
        fit(folder / "first", setting, plug)
    last = folder / "first" / "checkpoints" / "last.ckpt"
    fit(folder / "second", setting, resume=last if last.is_file() else None)
    (weights, rows), (resumed, resumed_rows) = whole(setting), left(folder / "second")
    torch.testing.assert_close(resumed, weights, rtol=0, atol=0)
    assert resumed_rows == rows


@pytest.mark.parametrize("act", ACTS, ids=["SIGTERM", "SIGINT", "error"])
@pytest.mark.parametrize("place", PLACES)
def test_a_run_is_resumed_to_the_bit(tmp_path, place, act):
    setting = "plain" if isinstance(act, OSError) else "everything"
    visit = min(PLACES[place], 5) if place == "backward" else PLACES[place]
    check_resumed(tmp_path, setting, Plug(place, visit, act))


@pytest.mark.slow
@pytest.mark.parametrize("setting", [name for name in SETTINGS if name not in ("plain", "everything")])
@pytest.mark.parametrize(
    ("place", "act"), [("step", signal.SIGTERM), ("before", OSError("no")), ("validation", signal.SIGINT)]
)
def test_a_run_of_other_settings_is_resumed_to_the_bit(tmp_path, setting, place, act):
    check_resumed(tmp_path, setting, Plug(place, PLACES[place], act))


@pytest.mark.slow
@pytest.mark.parametrize("visit", range(1, 3 * BATCHES + 1))
def test_a_signal_in_any_step_loses_nothing(tmp_path, visit):
    check_resumed(tmp_path, "everything", Plug("step", visit, signal.SIGTERM))
    done = load(tmp_path / "first", "last")["global_step"]
    assert done == [1, 1, 1, 2, 3, 3, 3, 4, 5, 5, 5, 6][visit - 1]  # the window that the signal met is finished


def test_a_run_stopped_early_is_not_trained_further(tmp_path):
    folder = tmp_path / "first"
    trainer = fit(folder, "everything")
    assert trainer.current_epoch == 3 < SETTINGS["everything"]["max_epochs"]
    again = fit(tmp_path / "second", "everything", resume=folder / "checkpoints" / "last.ckpt")
    assert again.global_step == trainer.global_step
    (weights, rows), (resumed, resumed_rows) = left(folder), left(tmp_path / "second")
    torch.testing.assert_close(resumed, weights, rtol=0, atol=0)
    assert resumed_rows == rows


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_outside_of_a_training_a_signal_is_raised_at_once(number):
    with pytest.raises(Interrupted, match=number.name), signals_raised():
        os.kill(os.getpid(), number)


@pytest.mark.parametrize("buffer", ["running_mean", "running_var"])
def test_a_statistic_that_is_not_finite_never_replaces_a_checkpoint(tmp_path, buffer):
    class Spoil(Hooks):
        def on_train_batch_end(self, trainer, net, *_):
            if trainer.current_epoch == 1:
                getattr(net.net[1], buffer).fill_(float("inf"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "Hooks", Spoil)
        with pytest.raises(ValueError, match=rf"epoch 2: the weights 'net.1.{buffer}' are no longer finite"):
            fit(tmp_path, "plain")
    assert load(tmp_path, "last")["epoch"] == 0
    assert all(x.isfinite().all() for x in load(tmp_path, "last")["state_dict"].values())


def test_a_resumed_epoch_says_the_seconds_since_it_went_on(tmp_path, caplog):
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        fit(tmp_path / "first", "plain", Plug("step", BATCHES + 2, signal.SIGTERM))
    caplog.clear()
    with caplog.at_level("INFO", "bbframe"):
        fit(tmp_path / "second", "plain", resume=tmp_path / "first" / "checkpoints" / "last.ckpt")
    lines = [message for message in caplog.messages if message.startswith("epoch ")]
    assert [line[:9] for line in lines] == ["epoch 2/3", "epoch 3/3"]
    assert all(float(line.split()[-2]) < 60 for line in lines), lines
