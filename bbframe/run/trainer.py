"""Lightning's Trainer as a configuration describes it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, RichProgressBar
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from bbframe.run.callbacks import EpochLines, SeedEveryBatch
from bbframe.run.configuration import Configuration
from bbframe.run.lightning_checkpoints import AtomicCheckpointIO, checkpoint_callbacks
from bbframe.run.lightning_parts import make_lightning_parts
from bbframe.run.resume import ResumedOptimizer
from bbframe.tasks.task import Task


def make_trainer(plan: Configuration, task: Task, folder: Path, more: Sequence[pl.Callback] = ()) -> pl.Trainer:
    """The Trainer of a run, which writes below `folder` alone, with `more` callbacks.

    Raises ValueError for options that Lightning refuses.
    """
    options, debug = plan.trainer, plan.run.debug
    callbacks: list[pl.Callback] = [SeedEveryBatch(plan.run.seed), EpochLines(), ResumedOptimizer(plan.optim), *more]
    if options.ema_decay is not None:
        callbacks.append(EMAWeightAveraging(decay=options.ema_decay))
    if options.early_stopping is not None:
        callbacks.append(EarlyStopping(task.monitor, mode=task.mode, patience=options.early_stopping))
    if sys.stdout.isatty():
        callbacks.append(RichProgressBar(leave=False))
    if not debug:
        callbacks += checkpoint_callbacks(folder, task.monitor, task.mode)
    callbacks += make_lightning_parts("callbacks", plan.callbacks, folder)
    loggers = [CSVLogger(folder, name="", version="", flush_logs_every_n_steps=1)]
    try:
        return pl.Trainer(
            default_root_dir=folder,  # Slurm's signal writes hpc_ckpt_*.ckpt there, and a start looks for it there
            accelerator=options.accelerator,
            devices=list(options.devices) if isinstance(options.devices, tuple) else options.devices,
            num_nodes=options.num_nodes,
            strategy=options.strategy,
            precision=options.precision,  # type: ignore[arg-type]
            logger=[*loggers, *make_lightning_parts("logger", plan.logger, folder)],
            callbacks=callbacks,
            plugins=[AtomicCheckpointIO()],
            max_epochs=1 if debug else options.max_epochs,
            max_steps=1 if debug else options.max_steps,
            limit_train_batches=1 if debug else options.limit_train_batches,
            limit_val_batches=1 if debug else options.limit_val_batches,
            limit_test_batches=1 if debug else options.limit_test_batches,
            gradient_clip_val=options.gradient_clip_val,
            accumulate_grad_batches=options.accumulate_grad_batches,
            check_val_every_n_epoch=options.check_val_every_n_epoch,
            log_every_n_steps=options.log_every_n_steps,
            deterministic=options.deterministic,
            detect_anomaly=options.detect_anomaly,
            sync_batchnorm=options.sync_batchnorm,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            enable_progress_bar=sys.stdout.isatty(),
            enable_checkpointing=not debug,
            use_distributed_sampler=False,  # the data module deals the images out itself
        )

    except (MisconfigurationException, ValueError) as error:
        raise ValueError(f"trainer: {str(error).splitlines()[0]}") from error
