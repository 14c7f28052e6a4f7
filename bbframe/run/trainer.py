"""Lightning's Trainer as a configuration describes it."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from bbframe.data.seeds import derive
from bbframe.run.cluster import cluster_environment, placed_processes
from bbframe.run.configuration import Configuration
from bbframe.run.epoch_table import EpochTable
from bbframe.run.lightning_checkpoints import AtomicCheckpointIO, checkpoint_callbacks
from bbframe.run.lightning_parts import make_lightning_parts
from bbframe.run.resume import AveragedWeights, ResumedEarlyStopping, ResumedOptimizer
from bbframe.run.run_log import EpochLines
from bbframe.run.sharded_strategy import strategy_of
from bbframe.run.shared_faults import SharedFaults
from bbframe.tasks.task import Task


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


def make_trainer(
    plan: Configuration,
    task: Task,
    folder: Path,
    more: Sequence[pl.Callback] = (),
    loggers: Sequence[Logger] = (),
) -> pl.Trainer:
    """The Trainer of a run, which writes below `folder` alone, with `more` callbacks and `loggers`.

    Raises ValueError for options that Lightning refuses.
    """
    settings = dataclasses.asdict(plan.trainer)
    patience, decay = settings.pop("early_stopping"), settings.pop("ema_decay")
    del settings["checkpoint_every"], settings["keep"]
    settings |= placed_processes(plan.trainer)
    settings["strategy"] = strategy_of(settings["strategy"])
    if plan.run.debug:
        settings.update(max_epochs=1, max_steps=1, limit_train_batches=1, limit_val_batches=1, limit_test_batches=1)
    callbacks: list[pl.Callback] = [
        SeedEveryBatch(plan.run.seed),
        SharedFaults(),
        EpochLines(),
        ResumedOptimizer(plan.optim),
        *more,
    ]
    if decay is not None:
        callbacks.append(AveragedWeights(decay=decay))
    if not plan.run.debug:
        keep = max(1, plan.trainer.keep)  # the best epoch's weights are tested, whether they are kept or not
        callbacks += checkpoint_callbacks(folder, task.monitor, task.mode, plan.trainer.interval, keep)
    if patience is not None:
        callbacks.append(ResumedEarlyStopping(task.monitor, mode=task.mode, patience=patience))
    if sys.stdout.isatty():
        callbacks.append(RichProgressBar(leave=False))
    callbacks += make_lightning_parts("callbacks", plan.callbacks, folder)
    try:
        return pl.Trainer(
            **settings,
            limit_predict_batches=settings["limit_val_batches"],  # the validation images
            default_root_dir=folder / "lightning",  # is never made: Lightning looks for hpc_ckpt_*.ckpt there
            logger=[EpochTable(folder, open=plan.run.train), *loggers],
            callbacks=callbacks,
            plugins=[AtomicCheckpointIO(), cluster_environment()],
            num_sanity_val_steps=0,
            enable_model_summary=False,
            enable_progress_bar=sys.stdout.isatty(),
            enable_checkpointing=not plan.run.debug,
            use_distributed_sampler=False,  # the data module deals the images out itself
        )
    except (MisconfigurationException, ValueError) as error:
        raise ValueError(f"trainer: {str(error).splitlines()[0]}") from error
