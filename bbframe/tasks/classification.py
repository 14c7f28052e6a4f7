"""Image classification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassF1Score

from bbframe.backbone import Backbone
from bbframe.heads.classifier import CLASSIFIERS
from bbframe.tasks.base import Task
from bbframe.tasks.options import ClassificationOptions, HeadOptions, OptimOptions, ScheduleOptions


class Classification(Task):
    """A backbone and a classifier, trained by cross-entropy on batches {"image", "label", "index"}.

    Labels are class indices (B,), or shares (B, num_classes) where augmentation has mixed images. After a test,
    `confusion` holds the counts (true class, predicted class), `class_f1` the score of each class, and `predictions`
    a row (index, label, predicted class, probability of it, loss) for every image.
    """

    monitor = "val/accuracy"
    options: ClassificationOptions

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
        super().__init__(backbone, class_names, task=task, optim=optim, schedule=schedule)
        count = len(self.class_names)
        classifier = CLASSIFIERS[head.name](backbone.channels, count, head.dropout)
        self.read_maps(classifier, classifier.reads)
        metrics: dict[str, Any] = {"accuracy": MulticlassAccuracy(count, average="micro")}
        if count > 5:
            metrics["top5"] = MulticlassAccuracy(count, average="micro", top_k=5)
        metrics["f1"] = MulticlassF1Score(count, average="macro")
        # compute groups would merge metrics whose states agree after the first batch, such as accuracy and top5
        self.val_metrics = MetricCollection(metrics, prefix="val/", compute_groups=False)
        self.test_metrics = self.val_metrics.clone(prefix="test/")
        self.test_confusion = MulticlassConfusionMatrix(count)
        self.test_class_f1 = MulticlassF1Score(count, average="none")
        self.confusion, self.class_f1 = torch.zeros(count, count), torch.zeros(count)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores (B, num_classes) of normalised images (B, C, H, W)."""
        return self.head(self.backbone(x).feature_maps)

    def predict(self, images: Sequence[Tensor]) -> list[Tensor]:
        """The probability of each class, (num_classes,), for each normalised image (C, H, W)."""
        return [*self(torch.stack(list(images))).float().softmax(dim=1)]

    def class_scores(self) -> dict[str, dict[str, float]]:
        values = [round(value, 6) for value in self.class_f1.tolist()]
        return {"class_f1": dict(zip(self.class_names, values, strict=True))}

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self(batch["image"]), batch["label"], label_smoothing=self.options.label_smoothing)
        size = len(batch["image"])
        self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=size)
        return self.finite(loss, batch_idx)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        scores = self(batch["image"])
        size = len(scores)
        self.log("val/loss", F.cross_entropy(scores, batch["label"]), prog_bar=True, batch_size=size)
        self.val_metrics.update(scores, batch["label"])
        self.log_dict(self.val_metrics, batch_size=size)

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
        self.gather_predictions()
        self.confusion, self.class_f1 = self.test_confusion.compute().cpu(), self.test_class_f1.compute().cpu()
        self.test_confusion.reset()
        self.test_class_f1.reset()
