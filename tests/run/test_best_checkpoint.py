"""The checkpoints of the best epochs: which are kept, what they hold, and what a kill or a resume leaves of them."""

import math
import os
from contextlib import suppress

import pytest
import torch
from lightning.pytorch import Callback

from tests.run.test_checkpoint import Line, fit, load, names

pytestmark = pytest.mark.filterwarnings(  # Lightning's own, over the torch and the loaders of this test
    "ignore:.*does not have many workers:UserWarning",
    "ignore:.*LeafSpec:FutureWarning",
    "ignore:Checkpoint directory .* exists and is not empty",
)


def kept(folder):
    """The epoch and the value in each checkpoint of a best epoch, by the file's name."""
    files = sorted(path for path in (folder / "checkpoints").iterdir() if path.name != "last.ckpt")
    return {path.name: (load(path)["best"]["epoch"], load(path)["best"]["value"]) for path in files}


def test_it_holds_the_weights_of_its_epoch_and_nothing_that_trains_on(tmp_path):
    fit(tmp_path, Line([0.1, 0.7, 0.5]), 3)
    best = load(tmp_path / "checkpoints" / "best.ckpt")
    assert set(best) == {"state_dict", "epoch", "global_step", "pytorch-lightning_version", "best"}
    assert best["best"] == {"metric": "val/accuracy", "value": pytest.approx(0.7), "epoch": 2}
    fit(tmp_path / "two", Line([0.1, 0.7]), 2)
    last = load(tmp_path / "two" / "checkpoints" / "last.ckpt")
    torch.testing.assert_close(best["state_dict"], last["state_dict"], rtol=0, atol=0)
    assert {"optimizer_states", "epoch_state", "callbacks"} <= set(last)


@pytest.mark.parametrize(
    ("accuracies", "mode", "keep", "expected"),
    [
        ([0.1, 0.7, 0.5, 0.6], "max", 1, {"best.ckpt": 2}),
        ([0.1, 0.7, 0.5, 0.6], "max", 2, {"best.ckpt": 2, "epoch_4.ckpt": 4}),
        ([0.1, 0.2, 0.3, 0.4], "max", 3, {"best.ckpt": 4, "epoch_2.ckpt": 2, "epoch_3.ckpt": 3}),
        ([0.4, 0.3, 0.2, 0.1], "min", 2, {"best.ckpt": 4, "epoch_3.ckpt": 3}),
        ([0.4, 0.3, 0.2, 0.1], "max", 2, {"best.ckpt": 1, "epoch_2.ckpt": 2}),
        ([0.5, 0.5, 0.5], "max", 2, {"best.ckpt": 1, "epoch_2.ckpt": 2}),
        ([0.1, 0.2], "max", 5, {"best.ckpt": 2, "epoch_1.ckpt": 1}),
        ([math.nan, 0.2, math.inf], "max", 2, {"best.ckpt": 2}),
        ([math.nan, math.nan], "max", 1, {}),
    ],
)
def test_the_best_epochs_are_kept_the_earlier_one_of_equals(tmp_path, accuracies, mode, keep, expected):
    trainer = fit(tmp_path, Line(accuracies), len(accuracies), mode=mode, keep=keep)
    found = kept(tmp_path)
    assert {name: epoch for name, (epoch, _) in found.items()} == expected
    assert all(value == pytest.approx(accuracies[epoch - 1]) for epoch, value in found.values())
    best = trainer.checkpoint_callback.best
    assert (best.epoch if best else None) == expected.get("best.ckpt")


def test_an_epoch_without_validation_is_not_measured_by_the_last_one(tmp_path):
    class Seldom(Callback):
        def on_fit_start(self, trainer, pl_module):
            trainer.check_val_every_n_epoch = 2

    model = Line([0.0, 0.3, 0.0, 0.2])
    model.configure_callbacks = lambda: [Seldom()]
    fit(tmp_path, model, 4, keep=4)
    assert kept(tmp_path) == {"best.ckpt": (2, pytest.approx(0.3)), "epoch_4.ckpt": (4, pytest.approx(0.2))}


@pytest.mark.parametrize("moved", [True, False])
@pytest.mark.parametrize("keep", [1, 2, 3])
def test_a_resumed_run_keeps_what_an_uninterrupted_one_does(tmp_path, keep, moved):
    accuracies = [0.5, 0.8, 0.2, 0.6, 0.7]
    fit(tmp_path / "whole", Line(accuracies), 5, keep=keep)
    fit(tmp_path / "first", Line(accuracies), 3, keep=keep)
    again = tmp_path / ("second" if moved else "first")
    fit(again, Line(accuracies), 5, resume=tmp_path / "first/checkpoints/last.ckpt", keep=keep)
    assert kept(again) == kept(tmp_path / "whole")
    assert names(again) == names(tmp_path / "whole")


def test_fewer_may_be_kept_after_a_resume(tmp_path):
    fit(tmp_path / "first", Line([0.5, 0.8, 0.2]), 3, keep=3)
    fit(tmp_path / "second", Line([0.5, 0.8, 0.2, 0.1]), 4, resume=tmp_path / "first/checkpoints/last.ckpt", keep=1)
    assert names(tmp_path / "second") == ["best.ckpt", "last.ckpt"]
    assert kept(tmp_path / "second")["best.ckpt"][0] == 2


class Killed(BaseException):
    """What ends a test's run in the middle of its files, as SIGKILL would."""


MOMENTS = [(3, moves) for moves in (2, 5, 7, 8)]
OTHERS = [(keep, moves) for keep in (1, 2, 3) for moves in range(1, 15) if (keep, moves) not in MOMENTS]


@pytest.mark.parametrize(("keep", "moves"), [*MOMENTS, *(pytest.param(*m, marks=pytest.mark.slow) for m in OTHERS)])
def test_killed_between_any_two_files_nothing_is_lost(tmp_path, monkeypatch, keep, moves):
    """After any number of renamed files the run is ended, and resumed in its own folder."""
    accuracies, real, left = [0.3, 0.5, 0.4, 0.8], os.replace, [moves]
    fit(tmp_path / "whole", Line(accuracies), 4, keep=keep)

    def replace(source, target):
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        real(source, target)

    folder = tmp_path / "run"
    monkeypatch.setattr(os, "replace", replace)
    with suppress(Killed):
        fit(folder, Line(accuracies), 4, keep=keep)
    monkeypatch.undo()
    last = folder / "checkpoints" / "last.ckpt"
    fit(folder, Line(accuracies), 4, resume=last if last.is_file() else None, keep=keep)
    assert kept(folder) == kept(tmp_path / "whole")
    assert names(folder) == names(tmp_path / "whole")
