"""Short trainings that leave a run, its data and its random numbers as they were."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.seed import isolate_rng

from bbframe.data.data_module import DataModule
from bbframe.run.cluster import cluster_environment, placed_processes
from bbframe.run.configuration import Configuration
from bbframe.run.stop_signals import signals_kept
from bbframe.tasks import OptimOptions
from bbframe.tasks.task import Task

# the options of the Trainer by which a trial trains as the run will
ALIKE = (
    "accelerator strategy precision gradient_clip_val accumulate_grad_batches deterministic limit_train_batches "
    "sync_batchnorm"
)


def in_all_processes(value: float, kind: str) -> float:
    """The "mean" or the "min" of a number over the processes that have trained together, the same in all of them."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return value
    shares: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(shares, value)
    return min(shares) if kind == "min" else sum(shares) / len(shares)


def trial_trainer(plan: Configuration, place: Path, callbacks: Sequence[pl.Callback], **limits: Any) -> pl.Trainer:
    """A Trainer that trains as the run's will, within `limits`, and writes nothing but temporary files in `place`.

    Raises ValueError for options that Lightning refuses.
    """
    settings: dict[str, Any] = {name: getattr(plan.trainer, name) for name in ALIKE.split()}
    settings |= placed_processes(plan.trainer)
    try:
        return pl.Trainer(
            **settings | limits,
            num_sanity_val_steps=0,
            default_root_dir=place,
            logger=False,
            callbacks=list(callbacks),
            plugins=[cluster_environment()],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
    except (MisconfigurationException, ValueError) as error:
        raise ValueError(f"trainer: {str(error).splitlines()[0]}") from error


def train_a_copy(
    plan: Configuration,
    task: Task,
    data: DataModule,
    folder: Path,
    *,
    steps: int,
    callbacks: Sequence[pl.Callback],
    optim: OptimOptions,
    batch_size: int | None = None,
) -> None:
    """Train a copy of `task` for some optimizer steps, on batches of another size where one is given.

    `folder` is the run's; what is written into it is removed. Raises what the training raises.
    """
    trial = copy.deepcopy(task)
    trial.optim = optim
    images = data.separate() if batch_size is None else data.separate(batch_size=batch_size, num_workers=0)
    with isolate_rng(), TemporaryDirectory(prefix=".trial_", dir=folder) as place:
        trainer = trial_trainer(plan, Path(place), callbacks, max_steps=steps, max_epochs=-1, limit_val_batches=0)
        try:
            with signals_kept(trainer):
                trainer.fit(trial, datamodule=images)
        finally:
            images.teardown("exception")
