"""optim.lr=auto: a range test of the learning rate, which rises from step to step until the loss does (Smith, 2017).

Source: "Cyclical Learning Rates for Training Neural Networks", arXiv:1506.01186. Lightning's own finder gives every
parameter group one rate. Here each has the rate that it would train at, so that `layer_decay` and `backbone_lr` count.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np

from bbframe.data.data_module import DataModule
from bbframe.report.learning_rate_chart import learning_rate_chart
from bbframe.run.configuration import Configuration
from bbframe.run.processes import is_first
from bbframe.run.trainer import SeedEveryBatch
from bbframe.run.trial_training import in_all_processes, train_a_copy
from bbframe.tasks import OptimOptions
from bbframe.tasks.task import LossNotFinite, Task

log = logging.getLogger("bbframe")

LOWEST, HIGHEST, STEPS = 1e-6, 10.0, 120
WINDOW = 9  # steps over which a loss is averaged
DIVERGED = 3.0  # a loss of this many times the best ends the test
LEAST_FALL = 0.02  # of the loss, without which no rate is better than another
INSTEAD = "0.001"


class RangeTest(pl.Callback):
    """Sets the learning rate of every step, and notes its loss: `rates` and `losses`."""

    def __init__(self, options: OptimOptions) -> None:
        self.options = options
        self.rates: list[float] = []
        self.losses: list[float] = []
        self._scales: list[tuple[float, float]] = []  # of each group: its rate is a * lr + b

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find out how each group's rate depends on optim.lr."""
        fixed, lr = self.options.backbone_lr, self.options.rate
        head = {id(parameter) for parameter in pl_module.head.parameters()}  # type: ignore[union-attr]
        for group in trainer.optimizers[0].param_groups:
            rate = group["initial_lr"]
            moves = fixed is None or id(group["params"][0]) in head
            self._scales.append((rate / lr, 0.0) if moves else (0.0, rate))

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        rate = LOWEST * (HIGHEST / LOWEST) ** (trainer.global_step / (STEPS - 1))
        for group, (factor, fixed) in zip(trainer.optimizers[0].param_groups, self._scales, strict=True):
            group["lr"] = factor * rate + fixed
        self._rate = rate

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = in_all_processes(float(outputs["loss"]), "mean")
        if self.rates and self.rates[-1] == self._rate:  # batches of one step
            self.losses[-1] = loss
        else:
            self.rates.append(self._rate)
            self.losses.append(loss)
        smooth = mean_losses(self.losses)
        if not math.isfinite(loss) or (len(smooth) > WINDOW and smooth[-1] > DIVERGED * min(smooth)):
            trainer.should_stop = True


def find_learning_rate(plan: Configuration, task: Task, data: DataModule, folder: Path) -> float:
    """The learning rate that a range test suggests; its picture is pictures/learning_rate.png in `folder`.

    A copy of the network is trained on the training images in the run's order. Raises ValueError in one line when no
    rate stands out.
    """
    # above any rate of a group that does not move, so that no group holds both kinds
    optim = replace(task.optim, lr=2 * (task.optim.backbone_lr or 0.5))
    test = RangeTest(optim)
    with suppress(LossNotFinite):  # it ends where the losses do
        callbacks = [SeedEveryBatch(plan.run.seed), test]
        train_a_copy(plan, task, data, folder, steps=STEPS, callbacks=callbacks, optim=optim)
    chosen = suggested(test.rates, test.losses)
    if is_first():
        pictures = folder / "pictures"
        pictures.mkdir(exist_ok=True)
        learning_rate_chart(test.rates, test.losses, mean_losses(test.losses), chosen, pictures / "learning_rate.png")
    if chosen is None:
        last = test.rates[-1] if test.rates else LOWEST
        raise ValueError(
            f"optim: lr=auto found no learning rate: in {len(test.losses)} steps from {LOWEST:g} to {last:.2g} the "
            f"loss did not fall by {LEAST_FALL:.0%} before it rose; "
            f"type a number, such as optim.lr={INSTEAD}"
        )
    log.info(
        "lr        optim.lr=%g (auto): a tenth of the rate with the lowest of %d losses", chosen, len(test.losses)
    )
    return chosen


def mean_losses(losses: Sequence[float]) -> list[float]:
    """The mean of each loss and its neighbours, WINDOW of them, without those that are not finite."""
    values, half = np.asarray(losses, dtype=float), WINDOW // 2
    windows = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    kept = [window[np.isfinite(window)] for window in windows]
    return [float(window.mean()) if len(window) else math.inf for window in kept]


def suggested(rates: Sequence[float], losses: Sequence[float]) -> float | None:
    """A tenth of the rate at which the smoothed loss is lowest, to two digits.

    The rate of the steepest fall, which Lightning suggests, hangs on noise, and lags where the loss falls slowly. None
    when the loss never falls: the test was too short, or diverged at once.
    """
    smooth = np.asarray(mean_losses(losses))
    if len(smooth) < 2 * WINDOW:
        return None
    lowest = int(smooth.argmin())
    if lowest < WINDOW or smooth[: lowest + 1].max() - smooth[lowest] < LEAST_FALL * abs(smooth[0]):
        return None
    return float(f"{rates[lowest] / 10:.2g}")
