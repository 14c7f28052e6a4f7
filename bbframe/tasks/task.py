"""The base of every task: a backbone under a head, an optimiser, and a loss that must stay finite."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from bbframe.backbone import Backbone
from bbframe.heads import HeadOptions
from bbframe.registry import PartOptions, make
from bbframe.tasks.freezing import keep_in_eval, prepare
from bbframe.tasks.optimizer import parameter_groups
from bbframe.tasks.optimizer_options import OptimOptions
from bbframe.tasks.task_options import TaskOptions


class LossNotFinite(ValueError):
    """The training loss is nan or infinite."""


class Task(pl.LightningModule, ABC):
    """A backbone and a head, trained on the batches of a data module.

    `monitor` is the metric whose largest value chooses the best epoch. After a test, `predictions` holds a row for
    every image, which begins with the image's index, and `tested` the indices of all images.
    """

    monitor: str
    mode = "max"
    head: Any

    def __init__(
        self,
        options: TaskOptions,
        backbone: Backbone,
        class_names: Sequence[str],
        *,
        head: HeadOptions,
        optim: OptimOptions,
        schedule: PartOptions,
    ):
        super().__init__()
        self.options, self.head_options, self.optim, self.schedule = options, head, optim, schedule
        self.class_names = list(class_names)
        self.predictions: list[Any] = []
        self.tested: list[int] = []
        self._weight = 1.0  # of the training batch among those of its optimizer step
        self._unchecked: tuple[Tensor, int, int] | None = None  # loss, epoch, batch
        prepare(backbone, options)
        self.backbone = backbone
        self.head = make("head", head, backbone.channels, backbone.strides, len(self.class_names))
        self.reading = [backbone.out_features[i] for i in self.head.reads]
        backbone.use_maps(self.reading)

    @property
    def processes(self) -> int:
        """How many processes train or test this task together."""
        return 1 if self._trainer is None else self._trainer.world_size

    @property
    def metric_name(self) -> str:
        """The name of the monitored metric, whatever the part of the data: "accuracy"."""
        return self.monitor.removeprefix("val/")

    def notes(self) -> dict[str, str]:
        """What a run logs about the head before it trains: {word: text}."""
        return self.head.notes() if hasattr(self.head, "notes") else {}

    @abstractmethod
    def predict(self, images: Sequence[Tensor]) -> list[Any]:
        """The prediction for each normalised image (C, H, W); the images may differ in size."""

    @abstractmethod
    def class_scores(self) -> dict[str, dict[str, float]]:
        """The scores of each class after a test: {name of the score: {class: value}}."""

    def intervals(self) -> dict[str, tuple[float, float]]:
        """The 95 % intervals of metrics after a test, {metric, as "accuracy": (low, high)}: of those that have one."""
        return {}

    def calibration(self) -> dict[str, float]:
        """How far probabilities can be believed, after a test: {measure: value}; empty for a task without any."""
        return {}

    def train(self, mode: bool = True) -> Task:
        """Set the mode; in training mode, frozen parts stay in eval mode."""
        super().train(mode)
        if mode:
            keep_in_eval(self.backbone, self.options)
        return self

    def on_fit_start(self) -> None:
        self.train()  # Lightning leaves modules in the mode that it finds them in; loaded ones are in eval mode

    def log_mean(self, name: str, value: Tensor, count: int, prog_bar: bool = False) -> None:
        """Log the mean of a value over the epoch and all processes, where this one is the mean of `count` images.

        A batch without any image that counts, of a process that keeps step with others, has the count 0.
        """
        weight: Any = float(count)  # Lightning's mean of whole numbers over the processes is rounded down
        self.log(name, value, on_step=False, on_epoch=True, prog_bar=prog_bar, batch_size=weight, sync_dist=True)

    def finite(self, loss: Tensor, batch_idx: int) -> Tensor:
        """Check the training loss; on a GPU one step later, so that neither host nor GPU waits for the other."""
        self.check_loss()
        self._unchecked = (loss.detach(), self.current_epoch, batch_idx)
        if loss.device.type == "cpu":
            self.check_loss()
        return loss

    def check_loss(self) -> None:
        """Raises LossNotFinite, with what to try, when the latest unchecked loss is not finite."""
        if self._unchecked is None:
            return
        (loss, epoch, batch), self._unchecked = self._unchecked, None
        if self.processes > 1:  # all processes end together: one alone would leave the others waiting for its gradient
            loss = self.trainer.strategy.reduce(loss, reduce_op="sum")
        if not torch.isfinite(loss):
            raise LossNotFinite(
                f"the training loss is {loss.item()} at epoch {epoch + 1}, batch {batch + 1}; try a lower optim.lr, "
                "schedule.warmup_epochs or trainer.gradient_clip_val=1"
            )

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self._weight = batch.get("weight", 1.0)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Weigh a batch's loss so that all images of the optimizer's step weigh alike."""
        super().backward(loss if self._weight == 1 else loss * self._weight, *args, **kwargs)

    def on_train_epoch_end(self) -> None:
        self.check_loss()  # before a checkpoint is written

    def on_test_start(self) -> None:
        self.predictions, self.tested = [], []

    def on_test_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.tested += [] if "stand_in" in batch else batch["index"].tolist()

    def on_test_end(self) -> None:
        self.tested = sorted(self.in_first_process(self.tested))

    def gather_predictions(self) -> None:
        """Collect the rows of all processes in the first one, sorted by the images' indices; the others keep none."""
        if self.processes > 1:  # each process has tested its share of the images
            rows = self.in_first_process(self.predictions)
            self.predictions = sorted(rows, key=lambda row: row[0]) if self.trainer.is_global_zero else []

    def in_first_process(self, rows: list[Any]) -> list[Any]:
        """The rows of all processes, process after process, in the first one; in the others their own."""
        if self.processes == 1:
            return rows
        first = self.trainer.is_global_zero
        shares: list[Any] = [None] * self.processes
        torch.distributed.gather_object(rows, shares if first else None)
        return [row for share in shares for row in share] if first else rows

    def configure_optimizers(self) -> OptimizerLRScheduler:
        # Lightning cannot clip the gradients of a fused optimiser in mixed precision
        clipped = bool(self.trainer.gradient_clip_val) and str(self.trainer.precision).endswith("mixed")
        fused = self.device.type in ("cpu", "cuda") and not clipped
        groups = parameter_groups(self.backbone, self.head, self.optim)
        optimizer = make("optim", self.optim, groups, fused=fused)
        self.trainer.fit_loop.setup_data()  # counts the batches
        epoch_steps = math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        factor = make("schedule", self.schedule, int(self.trainer.estimated_stepping_batches), epoch_steps)
        # a function, because torch would put the attributes of an object into the checkpoint
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factor(step))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
