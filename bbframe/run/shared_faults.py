"""Images that several processes could not read, or had to assume something of, counted and told once for all."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from bbframe.data.data_module import DataModule


class SharedFaults(Callback):
    """Tells every process what the others met, after each pass over images.

    Then each knows how many images are skipped, and raises the same error when they are more than allowed.
    """

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        share_faults(trainer)

    on_validation_end = on_test_end = on_predict_end = on_train_epoch_end


def share_faults(trainer: Trainer) -> None:
    """Give the data module of every process what those of the others have met since the last time."""
    data: Any = getattr(trainer, "datamodule", None)
    if trainer.world_size == 1 or not isinstance(data, DataModule):
        return
    shares: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(shares, data.faults.fresh())
    for errors, assumed in shares:
        data.faults.take(errors, assumed)
