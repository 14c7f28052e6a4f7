"""Checkpoints: their names, what a kill or a flipped bit does to them, and resuming."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

from bbframe.run.checkpoint import load_checkpoint
from bbframe.run.lightning_checkpoints import AtomicCheckpointIO, checkpoint_callbacks

pytestmark = pytest.mark.filterwarnings(  # Lightning's own, over the torch and the loaders of this test
    "ignore:.*does not have many workers:UserWarning", "ignore:.*LeafSpec:FutureWarning"
)


class Line(LightningModule):
    """A regression whose validation accuracy follows a given list, and which may do something at a global step."""

    def __init__(self, accuracies, at_step=None, act=None):
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Linear(3, 1)
        self.accuracies, self.at_step, self.act = accuracies, at_step, act

    def training_step(self, batch, index):
        if self.at_step == self.global_step:
            self.act(self)
        return self.net(batch[0]).square().mean()

    def validation_step(self, batch, index):
        self.log("val/accuracy", self.accuracies[self.current_epoch])

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), 0.1)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)]


def fit(folder, model, epochs, resume=None, monitor="val/accuracy", mode="max", validate=True, keep=1):
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=checkpoint_callbacks(folder, monitor, mode, keep=keep),
        plugins=[AtomicCheckpointIO()],
        num_sanity_val_steps=0,
        limit_val_batches=1.0 if validate else 0,
    )
    loader = DataLoader(TensorDataset(torch.ones(8, 3)), batch_size=2)
    trainer.fit(model, loader, loader, ckpt_path=resume)
    return trainer


def names(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def load(path):
    return torch.load(path, weights_only=True)


def test_the_best_and_the_last_epoch_have_fixed_names(tmp_path):
    trainer = fit(tmp_path, Line([0.1, 0.7, 0.5, 0.6]), 4)
    assert names(tmp_path) == ["best.ckpt", "last.ckpt"]
    assert load(tmp_path / "checkpoints/best.ckpt")["epoch"] == 1
    assert load(tmp_path / "checkpoints/last.ckpt")["epoch"] == 3
    assert trainer.checkpoint_callback.best_model_score == pytest.approx(0.7)
    assert str(tmp_path) not in str(load(tmp_path / "checkpoints/last.ckpt")["callbacks"])


def test_lower_is_better_in_mode_min(tmp_path):
    fit(tmp_path, Line([0.5, 0.1, 0.3]), 3, mode="min")
    assert load(tmp_path / "checkpoints/best.ckpt")["epoch"] == 1


def test_without_validation_there_is_a_last_checkpoint_only(tmp_path):
    fit(tmp_path, Line([]), 2, monitor=None, validate=False)
    assert names(tmp_path) == ["last.ckpt"]


@pytest.mark.parametrize(("later", "best_epoch"), [([0.8, 0.2, 0.3], 0), ([0.8, 0.2, 0.9], 2)])
def test_a_resumed_run_continues_and_keeps_the_earlier_best(tmp_path, later, best_epoch):
    fit(tmp_path / "whole", Line(later), 3)
    fit(tmp_path / "first", Line(later), 2)
    (tmp_path / "first").rename(tmp_path / "moved")
    fit(tmp_path / "second", Line(later), 3, resume=tmp_path / "moved/checkpoints/last.ckpt")
    assert names(tmp_path / "second") == ["best.ckpt", "last.ckpt"]
    for name, epoch in [("best", best_epoch), ("last", 2)]:
        resumed, whole = (load(tmp_path / run / f"checkpoints/{name}.ckpt") for run in ("second", "whole"))
        assert resumed["epoch"] == epoch
        assert resumed["global_step"] == whole["global_step"]
        torch.testing.assert_close(resumed["state_dict"], whole["state_dict"], rtol=0, atol=0)
        torch.testing.assert_close(resumed.get("optimizer_states"), whole.get("optimizer_states"), rtol=0, atol=0)
    assert names(tmp_path / "moved") == ["best.ckpt", "last.ckpt"]


def fail(model):
    raise OSError("a picture cannot be read")


def terminate(model):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.01)


@pytest.mark.parametrize(("act", "error", "step"), [(fail, OSError, 6), (terminate, SystemExit, 7)])
def test_a_run_that_ends_early_leaves_its_last_step(tmp_path, act, error, step):
    with pytest.raises(error):
        fit(tmp_path, Line([0.1, 0.2, 0.3], at_step=6, act=act), 3)
    assert load(tmp_path / "checkpoints/last.ckpt")["global_step"] == step
    assert names(tmp_path) == ["best.ckpt", "last.ckpt"]


@pytest.mark.parametrize("step", [7, 9])
def test_weights_that_are_not_finite_never_replace_a_checkpoint(tmp_path, step):
    def spoil(model):
        torch.nn.init.constant_(model.net.bias, torch.nan)

    with pytest.raises(ValueError, match=r"epoch [23]: the weights 'net.weight' are no longer finite"):
        fit(tmp_path, Line([0.1, 0.2, 0.9], at_step=step, act=spoil), 3)
    for name in ("best", "last"):
        assert all(t.isfinite().all() for t in load(tmp_path / f"checkpoints/{name}.ckpt")["state_dict"].values())


def write(path, value=1.0):
    content = {"state_dict": {"w": torch.full((500,), value)}, "epoch": 3, "bbframe": {"config": {"a": [1, 2]}}}
    AtomicCheckpointIO().save_checkpoint(content, path)
    return content


def test_a_save_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "last.ckpt"
    write(path)
    with pytest.raises(Exception, match="pickle"):
        AtomicCheckpointIO().save_checkpoint({"f": lambda: 0}, path)
    assert AtomicCheckpointIO().load_checkpoint(path)["epoch"] == 3
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_save_never_leaves_the_folder_of_its_target(tmp_path, monkeypatch):
    moves = []
    monkeypatch.setattr(os, "replace", lambda a, b, real=os.replace: (moves.append((a, b)), real(a, b)))
    write(tmp_path / "new" / "last.ckpt")
    assert [(Path(a).parent, Path(b).name) for a, b in moves] == [(tmp_path / "new", "last.ckpt")]


def test_no_flipped_bit_is_loaded_silently(tmp_path):
    path = tmp_path / "last.ckpt"
    content = write(path)
    whole, choose = path.read_bytes(), random.Random(0)
    messages = set()
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[choose.randrange(len(whole))] ^= 1 << choose.randrange(8)
        path.write_bytes(damaged)
        try:
            loaded = AtomicCheckpointIO().load_checkpoint(path)
        except ValueError as error:
            messages.add(str(error))
        else:  # a bit of the padding
            torch.testing.assert_close(loaded, content, rtol=0, atol=0)
    assert len(messages) > 3
    assert all(str(path) in message and "\n" not in message for message in messages)


@pytest.mark.parametrize(
    ("size", "problem"), [(0, "is empty"), (1, "is truncated"), (700, "is truncated"), (-1, "is truncated")]
)
def test_a_truncated_checkpoint_is_named_with_a_whole_one_beside_it(tmp_path, size, problem):
    path = tmp_path / "last.ckpt"
    write(path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=rf"last\.ckpt {problem}[^;]*$"):
        AtomicCheckpointIO().load_checkpoint(path)
    (tmp_path / "broken.ckpt").write_bytes(b"PK")
    write(tmp_path / "best.ckpt")
    with pytest.raises(ValueError, match=rf"last\.ckpt {problem}.*; .*best\.ckpt is whole"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("https://example.org/last.ckpt", "is a URL"),
        ("s3://bucket/last.ckpt", "is a URL"),
        ("nowhere/last.ckpt", "does not exist"),
        (".", "is not a file"),
    ],
)
def test_only_local_files_are_loaded(path, problem):
    with pytest.raises(ValueError, match=problem):
        AtomicCheckpointIO().load_checkpoint(path)


class Stranger:
    """A class that only a pickle which runs code can bring back."""


@pytest.mark.parametrize("asked", [None, False, True])
def test_a_checkpoint_never_runs_code(tmp_path, asked):
    torch.save({"epoch": Stranger()}, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match="holds more than tensors and plain containers"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "last.ckpt", weights_only=asked)
