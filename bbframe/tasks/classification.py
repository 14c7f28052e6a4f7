"""Image classification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassF1Score

from bbframe.backbone import Backbone
from bbframe.heads import HeadOptions
from bbframe.registry import PartOptions, make
from bbframe.tasks.bootstrap import Interval, intervals, macro_f1, means
from bbframe.tasks.calibration import Calibration, calibration_error
from bbframe.tasks.familiarity import Familiarity
from bbframe.tasks.optimizer_options import OptimOptions
from bbframe.tasks.task import Task
from bbframe.tasks.task_options import AccuracyOptions, ClassificationOptions

PROBABILITIES = ("probability", "scaled_probability")


class ClassifiedImage(NamedTuple):
    """One tested image: its index, its class, the predicted class, their probabilities, and the cross-entropy.

    `among_five` says whether its class has one of the five best scores; `scaled_probability` is the predicted class's
    once the scores are divided by the temperature. `distance` is from the training images; see `Familiarity`.
    """

    image: int
    label: int
    predicted: int
    probability: float
    true_probability: float
    loss: float
    among_five: bool
    scaled_probability: float
    distance: float


class Classification(Task):
    """A backbone and a classifier, trained on batches {"image", "label", "index"}.

    Labels are class indices (B,), or shares (B, num_classes) where augmentation has mixed images. After a test,
    `confusion` holds the counts (true class, predicted class), `class_f1` the score of each class, and `predictions`
    a `ClassifiedImage` for every image. `calibrated` and `familiarity` are what was fitted on validation data before
    the test, if any.
    """

    monitor = "val/accuracy"
    options: ClassificationOptions
    predictions: list[ClassifiedImage]
    familiarity: Familiarity | None

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
        self.calibrated = Calibration()
        self.keep_familiarity(None)
        self.predict_every = 1  # of how many validation images one serves a temperature

    def forward(self, x: Tensor) -> Tensor:
        """Class scores (B, num_classes) of normalised images (B, C, H, W)."""
        return self.head(self.backbone(x).feature_maps)

    def keep_familiarity(self, found: Familiarity | None) -> None:
        """Set what tells images that are unlike those of the training, on the CPU; no checkpoint holds it."""
        object.__setattr__(self, "familiarity", found)  # torch would make it a part of the network

    def scores_and_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The class scores (B, num_classes) and the mean of the last map (B, C) of normalised images, both float32."""
        maps = self.backbone(x).feature_maps
        return self.head(maps).float(), maps[-1].float().mean((2, 3))

    def predict(self, images: Sequence[Tensor]) -> list[Tensor]:
        """The calibrated probability of each class, (num_classes,), for each normalised image (C, H, W)."""
        return [*self.calibrated.probabilities(self.scores(images))]

    def scores(self, images: Sequence[Tensor]) -> Tensor:
        """The class scores (B, num_classes) float32 of normalised images (C, H, W)."""
        return self(torch.stack(list(images))).float()

    def class_scores(self) -> dict[str, dict[str, float]]:
        values = [round(value, 6) for value in self.class_f1.tolist()]
        return {"class_f1": dict(zip(self.class_names, values, strict=True))}

    def intervals(self) -> dict[str, Interval]:
        """Of accuracy, top5 and f1."""
        if not self.predictions:
            return {}
        rows = np.array([(row.label, row.predicted, row.among_five) for row in self.predictions])
        found = intervals(rows, _metrics, centred=["f1"])  # biased where classes have few images
        found["f1"] = found["f1"][0], min(1.0, found["f1"][1])
        return {name: ends for name, ends in found.items() if name in self.test_metrics}

    def calibration(self) -> dict[str, float]:
        """The expected calibration error, what a temperature leaves of it, and the share of unfamiliar test images."""
        if not self.predictions:
            return {}
        right = np.array([row.label == row.predicted for row in self.predictions])
        given, scaled = (np.array([getattr(row, name) for row in self.predictions]) for name in PROBABILITIES)
        found = {"ece": round(calibration_error(given, right), 6)}
        if self.calibrated.temperature is not None:
            found["ece_scaled"] = round(calibration_error(scaled, right), 6)
            found["temperature"] = round(self.calibrated.temperature, 6)
        if self.familiarity is not None:
            found["unfamiliar"] = round(float(np.mean([row.distance > 1 for row in self.predictions])), 6)
        return found

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        labels = smoothed(batch["label"], len(self.class_names), self.options.label_smoothing)
        loss = self.loss(self(batch["image"]), labels)
        self.log_mean("train/loss", loss, len(batch["image"]), prog_bar=True)
        return self.finite(loss, batch_idx)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self._measure("val", self.val_metrics, self(batch["image"]), batch)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        (scores, features), labels = self.scores_and_features(batch["image"]), batch["label"]
        self._measure("test", self.test_metrics, scores, batch)
        if "stand_in" in batch:
            return
        losses = F.cross_entropy(scores, labels, reduction="none")
        self.test_confusion.update(scores, labels)
        self.test_class_f1.update(scores, labels)
        shares = scores.softmax(dim=1)
        best, predicted = shares.max(dim=1)
        scaled = self.calibrated.probabilities(scores).max(dim=1).values
        true = shares.gather(1, labels[:, None])[:, 0]
        among_five = (scores.topk(min(5, scores.shape[1])).indices == labels[:, None]).any(dim=1)
        far = losses.new_zeros(len(losses)) if self.familiarity is None else self.familiarity(features.cpu())
        columns = (batch["index"], labels, predicted, best, true, losses, among_five, scaled, far)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        self.predictions.extend(ClassifiedImage(*row) for row in rows)

    def _measure(self, part: str, metrics: MetricCollection, scores: Tensor, batch: dict[str, Tensor]) -> None:
        """Log the loss and the metrics of an evaluation's batch."""
        counted = 0 if "stand_in" in batch else len(scores)
        self.log_mean(f"{part}/loss", self.loss(scores, batch["label"]), counted, prog_bar=part == "val")
        if counted:
            metrics.update(scores, batch["label"])
        self.log_dict(metrics, batch_size=len(scores))

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> tuple[Tensor, Tensor, Tensor]:
        """The scores, labels and features of images, on the CPU, of one in `predict_every`: for a calibration."""
        chosen = batch["index"] % self.predict_every == 0
        if "stand_in" in batch:
            chosen = torch.zeros_like(chosen)
        scores, features = self.scores_and_features(batch["image"])
        return scores[chosen].cpu(), batch["label"][chosen].cpu(), features[chosen].cpu()

    def on_test_epoch_end(self) -> None:
        self.gather_predictions()
        self.confusion, self.class_f1 = self.test_confusion.compute().cpu(), self.test_class_f1.compute().cpu()
        self.test_confusion.reset()
        self.test_class_f1.reset()


def _metrics(kinds: np.ndarray, drawn: np.ndarray) -> dict[str, np.ndarray]:
    labels, predicted, among_five = kinds.T
    return {
        "accuracy": means(labels == predicted, drawn),
        "top5": means(among_five, drawn),
        "f1": macro_f1(labels, predicted, drawn),
    }


def smoothed(labels: Tensor, num_classes: int, share: float) -> Tensor:
    """Spread a `share` of labels, indices (B,) or shares (B, num_classes), evenly over all classes: (B, num_classes).

    Szegedy et al., arXiv:1512.00567. A share of 0 leaves the labels as they are.
    """
    if share == 0:
        return labels
    shares = labels if labels.ndim == 2 else F.one_hot(labels, num_classes).float()
    return shares * (1 - share) + share / num_classes
