"""Image classification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassF1Score

from bbframe.auto import Backbone
from bbframe.heads.classifier import CLASSIFIERS
from bbframe.tasks.options import ClassificationOptions, HeadOptions, OptimOptions, ScheduleOptions
from bbframe.tasks.tuning import keep_in_eval, make_optimizer, parameter_groups, prepare, rate_factor


class Classification(pl.LightningModule):
    """A backbone and a classifier, trained by cross-entropy on batches {"image", "label", "index"}.

    Labels are class indices (B,), or shares (B, num_classes) where augmentation has mixed images. After a test,
    `confusion` holds the counts (true class, predicted class), `class_f1` the score of each class, and `predictions`
    a row (index, label, predicted class, probability of it, loss) for every image.
    """

    monitor, mode = "val/accuracy", "max"

    def __init__(
        self,
        backbone: Backbone,
        class_names: Sequence[str],
        *,
        task: ClassificationOptions,
        head: HeadOptions,
        optim: OptimOptions,
        schedule: ScheduleOptions,
    ):
        super().__init__()
        self.options, self.optim, self.schedule = task, optim, schedule
        self.class_names = list(class_names)
        count = len(self.class_names)
        prepare(backbone, task)
        self.backbone = backbone
        self.head = CLASSIFIERS[head.name](backbone.channels, count, head.dropout)
        backbone.use_maps([backbone.out_features[i] for i in self.head.reads])
        metrics: dict[str, Any] = {"accuracy": MulticlassAccuracy(count, average="micro")}
        if count > 5:
            metrics["top5"] = MulticlassAccuracy(count, average="micro", top_k=5)
        metrics["f1"] = MulticlassF1Score(count, average="macro")
        self.val_metrics = MetricCollection(metrics, prefix="val/")
        self.test_metrics = MetricCollection(metrics, prefix="test/").clone()
        self.test_confusion = MulticlassConfusionMatrix(count)
        self.test_class_f1 = MulticlassF1Score(count, average="none")
        self.predictions: list[tuple[int, int, int, float, float]] = []
        self.confusion, self.class_f1 = torch.zeros(count, count), torch.zeros(count)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores (B, num_classes) of normalised images (B, C, H, W)."""
        return self.head(self.backbone(x).feature_maps)

    def train(self, mode: bool = True) -> Classification:
        """Training mode for all that trains: frozen parts stay in eval mode."""
        super().train(mode)
        if mode:
            keep_in_eval(self.backbone, self.options)
        return self

    def on_fit_start(self) -> None:
        self.train()  # Lightning leaves modules in the mode that it finds them in; loaded ones are in eval mode

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self(batch["image"]), batch["label"], label_smoothing=self.options.label_smoothing)
        if not torch.isfinite(loss):
            raise ValueError(
                f"the training loss is {loss.item()} at epoch {self.current_epoch}, batch {batch_idx}; try a lower "
                "optim.lr, schedule.warmup_epochs or trainer.gradient_clip_val=1"
            )
        self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch["image"]))
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        scores = self(batch["image"])
        size = len(scores)
        self.log("val/loss", F.cross_entropy(scores, batch["label"]), prog_bar=True, batch_size=size)
        self.val_metrics.update(scores, batch["label"])
        self.log_dict(self.val_metrics, batch_size=size)

    def on_test_start(self) -> None:
        self.predictions = []

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        scores, labels = self(batch["image"]).float(), batch["label"]
        losses = F.cross_entropy(scores, labels, reduction="none")
        self.log("test/loss", losses.mean(), batch_size=len(scores))
        self.test_metrics.update(scores, labels)
        self.log_dict(self.test_metrics, batch_size=len(scores))
        self.test_confusion.update(scores, labels)
        self.test_class_f1.update(scores, labels)
        best, predicted = scores.softmax(dim=1).max(dim=1)
        columns = (batch["index"], labels, predicted, best, losses)
        self.predictions.extend(zip(*(column.tolist() for column in columns), strict=True))

    def on_test_epoch_end(self) -> None:
        if self.trainer.world_size > 1:  # each process has tested its share of the images
            shares: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(shares, self.predictions)
            self.predictions = sorted(row for share in shares for row in share)
        self.confusion, self.class_f1 = self.test_confusion.compute().cpu(), self.test_class_f1.compute().cpu()
        self.test_confusion.reset()
        self.test_class_f1.reset()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = make_optimizer(parameter_groups(self.backbone, self.head, self.optim), self.optim)
        steps = int(self.trainer.estimated_stepping_batches)
        epochs = self.trainer.max_epochs if self.trainer.max_epochs and self.trainer.max_epochs > 0 else 1
        factor = rate_factor(self.schedule, steps, steps / epochs)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
