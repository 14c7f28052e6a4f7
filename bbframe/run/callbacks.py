"""Callbacks of every training: a seed for each batch, and a line in the log for each epoch."""

from __future__ import annotations

import logging
import time
from typing import Any

import lightning.pytorch as pl
import torch

from bbframe.data.seeds import derive

log = logging.getLogger("bbframe")


class SeedEveryBatch(pl.Callback):
    """Make dropout and drop path a function of (seed, rank, optimizer step, batch within the step).

    A checkpoint holds no generator's state; with this a resumed run draws what an uninterrupted one would have drawn.
    The epoch is no part of it: after some kinds of resume Lightning counts epochs differently.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        within = batch_idx % trainer.accumulate_grad_batches
        torch.manual_seed(derive(self.seed, "step", trainer.global_rank, trainer.global_step, within))


class EpochLines(pl.Callback):
    """Log one line an epoch: the metrics at its end, and its seconds."""

    def __init__(self) -> None:
        self.started = time.perf_counter()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # ModelCheckpoint and the log come after validation, which runs inside the training epoch
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        shown = "  ".join(f"{name} {value:.4f}" for name, value in sorted(values.items()))
        last = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else "?"
        seconds = time.perf_counter() - self.started
        log.info("epoch %d/%s  %s  %.1f s", trainer.current_epoch + 1, last, shown, seconds)
