"""The callback by which a search gives up a run that does worse than the others did."""

from __future__ import annotations

import logging
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn

from bbframe.sweep.search import Search

log = logging.getLogger("bbframe")


class PrunedBySearch(pl.Callback):
    """Tells a search the monitored metric after a validated epoch, and ends the training when its pruner says so."""

    def __init__(self, search: Search, trial: int) -> None:
        self.search, self.trial = search, trial
        self.pruned = False

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        monitor: Any = pl_module.monitor
        within = not trainer.is_last_batch  # an epoch, of which the search hears once
        if within or trainer.state.fn != TrainerFn.FITTING or monitor not in trainer.callback_metrics:
            return
        value, epoch = float(trainer.callback_metrics[monitor]), trainer.current_epoch + 1
        if self.search.stops(self.trial, epoch, value):
            self.pruned = True
            trainer.should_stop = True
            log.info("pruned    epoch %d: the search gives up this run (%s %.4f)", epoch, monitor, value)
