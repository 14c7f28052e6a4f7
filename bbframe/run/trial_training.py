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
ALIKE = "accelerator devices precision gradient_clip_val accumulate_grad_batches deterministic limit_train_batches"


def check_one_process(plan: Configuration, option: str, instead: str) -> None:
    """Raise ValueError where a run would start several processes, each of which would find another value."""
    placed = placed_processes(plan.trainer)
    given, count = placed["devices"], 1
    if given in ("auto", -1, "-1"):
        count = 1 if plan.trainer.accelerator == "cpu" else max(1, torch.cuda.device_count())
    elif isinstance(given, list):
        count = len(given)
    elif isinstance(given, str):
        count = len(given.split(",")) if "," in given else int(given)
    elif isinstance(given, int):
        count = given
    if (several := count * placed["num_nodes"]) > 1:
        raise ValueError(
            f"{option}=auto is found in one process, and this run starts {several}; find it with "
            f"trainer.devices=1 trainer.num_nodes=1, then type the number, such as {option}={instead}"
        )


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
            with signals_kept():
                trainer.fit(trial, datamodule=images)
        finally:
            images.teardown("exception")
