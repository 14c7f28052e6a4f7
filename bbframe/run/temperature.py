"""The temperature of a classifier, fitted on the validation images before the test."""

from __future__ import annotations

import logging
import math
from typing import Any

import lightning.pytorch as pl
import torch

from bbframe.data.data_module import DataModule
from bbframe.tasks.calibration import COLDEST, HOTTEST, fit_temperature
from bbframe.tasks.classification import Classification
from bbframe.tasks.task import Task

log = logging.getLogger("bbframe")
MOST = 10**8  # scores that are held: of more, those of every second image, or every third ...


def set_temperature(trainer: pl.Trainer, task: Task, data: DataModule) -> None:
    """Give a classifier the temperature that suits the validation images best.

    It has none when these are the images that are tested, because what is fitted on a test says nothing about it.
    """
    if not isinstance(task, Classification):
        return
    task.temperature = None
    if data.test_part != "test":
        log.info("temperature  none is fitted: the validation images are the ones that are tested")
        return
    task.predict_every = max(1, math.ceil(data.counts["val"] * data.num_classes / MOST))
    rows: list[Any] = trainer.predict(task, datamodule=data) or []
    if trainer.world_size > 1:
        shares: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(shares, rows)
        rows = [row for share in shares for row in share]
    scores, labels = (torch.cat(column) for column in zip(*rows, strict=True))
    task.temperature = fit_temperature(scores, labels)
    if task.temperature is None:
        log.info("temperature  none from %g to %g suits the %d validation images best", COLDEST, HOTTEST, len(labels))
