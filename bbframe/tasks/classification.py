"""Image classification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassF1Score

from bbframe.backbone import Backbone
from bbframe.heads import HeadOptions
from bbframe.registry import PartOptions, make
from bbframe.tasks.optimizer_options import OptimOptions
from bbframe.tasks.task import Task
from bbframe.tasks.task_options import AccuracyOptions, ClassificationOptions


class ClassifiedImage(NamedTuple):
    """One tested image: its index, its class, the predicted class and its probability, and the cross-entropy."""

    image: int
    label: int
    predicted: int
    probability: float
    loss: float


class Classification(Task):
    """A backbone and a classifier, trained on batches {"image", "label", "index"}.

    Labels are class indices (B,), or shares (B, num_classes) where augmentation has mixed images. After a test,
    `confusion` holds the counts (true class, predicted class), `class_f1` the score of each class, and `predictions`
    a `ClassifiedImage` for every image.
    """

    monitor = "val/accuracy"
    options: ClassificationOptions
    predictions: list[ClassifiedImage]

    def __init__(
        self,
        options: ClassificationOptions,
        backbone: Backbone,
        class_names: Sequence[str],
        *,
        head: HeadOptions,
        optim: OptimOptions,
        schedule: PartOptions,
    ):
        super().__init__(options, backbone, class_names, head=head, optim=optim, schedule=schedule)
        count = len(self.class_names)
        self.loss = make("loss", options.loss)
        top5 = [AccuracyOptions(name="top5")] if count > 5 else []
        chosen = [AccuracyOptions(name="accuracy"), *top5, AccuracyOptions(name="f1"), *options.metrics]
        metrics = {metric.name: make("metric", metric, count) for metric in chosen}
        # groups would merge metrics whose states agree after the first batch, such as top5 and accuracy
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
        labels = smoothed(batch["label"], len(self.class_names), self.options.label_smoothing)
        loss = self.loss(self(batch["image"]), labels)
        self.log_mean("train/loss", loss, len(batch["image"]), prog_bar=True)
        return self.finite(loss, batch_idx)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        scores = self(batch["image"])
        size = len(scores)
        self.log_mean("val/loss", self.loss(scores, batch["label"]), size, prog_bar=True)
        self.val_metrics.update(scores, batch["label"])
        self.log_dict(self.val_metrics, batch_size=size)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        scores, labels = self(batch["image"]).float(), batch["label"]
        losses = F.cross_entropy(scores, labels, reduction="none")
        self.log_mean("test/loss", self.loss(scores, labels), len(scores))
        self.test_metrics.update(scores, labels)
        self.log_dict(self.test_metrics, batch_size=len(scores))
        self.test_confusion.update(scores, labels)
        self.test_class_f1.update(scores, labels)
        best, predicted = scores.softmax(dim=1).max(dim=1)
        columns = (batch["index"], labels, predicted, best, losses)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        self.predictions.extend(ClassifiedImage(*row) for row in rows)

    def on_test_epoch_end(self) -> None:
        self.gather_predictions()
        self.confusion, self.class_f1 = self.test_confusion.compute().cpu(), self.test_class_f1.compute().cpu()
        self.test_confusion.reset()
        self.test_class_f1.reset()


def smoothed(labels: Tensor, num_classes: int, share: float) -> Tensor:
    """Spread a `share` of labels, indices (B,) or shares (B, num_classes), evenly over all classes: (B, num_classes).

    Szegedy et al., arXiv:1512.00567. A share of 0 leaves the labels as they are.
    """
    if share == 0:
        return labels
    shares = labels if labels.ndim == 2 else F.one_hot(labels, num_classes).float()
    return shares * (1 - share) + share / num_classes
