"""Checkpoints that are never written over with weights that are NaN or infinite, and their move to another folder."""

from __future__ import annotations

import shutil
from itertools import chain
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.distributed.tensor import DTensor

from bbframe.files import atomic
from bbframe.run.checkpoint_paths import is_sharded
from bbframe.run.sharded_checkpoint import copy_sharded


class FiniteCheckpoint(ModelCheckpoint):
    """A checkpoint after an epoch that stops the run rather than save weights that are NaN or infinite."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save. Raises ValueError when a weight is not finite."""
        self.check_finite(trainer, pl_module)
        super().on_train_epoch_end(trainer, pl_module)

    def check_finite(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raises ValueError when a weight, or a statistic such as BatchNorm's, is not finite."""
        if (bad := not_finite(trainer, pl_module)) is not None:
            raise ValueError(
                f"epoch {trainer.current_epoch + 1}: the weights {bad!r} are no longer finite, so no checkpoint was"
                f" written over those in {self.dirpath}; lower the learning rate, or clip the gradients"
            )


def not_finite(trainer: Trainer, module: LightningModule) -> str | None:
    """The name of the first parameter, or running statistic, that is NaN or infinite; all processes ask and agree."""
    statistics = ((name, x) for name, x in module.named_buffers() if name.endswith(("running_mean", "running_var")))
    tensors = chain(module.named_parameters(), statistics)
    parts = ((name, x.to_local() if isinstance(x, DTensor) else x) for name, x in tensors)
    bad = [next((name for name, x in parts if not x.isfinite().all()), None)]
    if trainer.world_size > 1:  # each has looked at its part, or at its own statistics
        own, bad = bad[0], bad * trainer.world_size
        torch.distributed.all_gather_object(bad, own)
    return next((name for name in bad if name is not None), None)


def take_over(source: Path, target: Path, trainer: Trainer) -> None:
    """Copy a checkpoint of an earlier run into the folder of this one."""
    if source.resolve() != target.resolve() and trainer.is_global_zero and is_sharded(source):
        copy_sharded(source, target)
    elif source.resolve() != target.resolve() and trainer.is_global_zero:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic(target) as part:
            shutil.copyfile(source, part)
