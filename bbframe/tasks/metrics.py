"""Metrics of classification: scores (B, num_classes) and labels (B,) -> a scalar."""

from __future__ import annotations

from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from bbframe.tasks.task_options import AccuracyOptions


def accuracy(options: AccuracyOptions, num_classes: int) -> MulticlassAccuracy:
    """The share of images whose class has the best score."""
    return MulticlassAccuracy(num_classes, average="micro")


def top5(options: AccuracyOptions, num_classes: int) -> MulticlassAccuracy:
    """The share of images whose class has one of the five best scores. Raises ValueError for five classes or fewer."""
    if num_classes <= 5:
        raise ValueError(f"task: metrics: top5 of {num_classes} classes is always 1; it needs 6 or more")
    return MulticlassAccuracy(num_classes, average="micro", top_k=5)


def f1(options: AccuracyOptions, num_classes: int) -> MulticlassF1Score:
    """The F1 score of each class, averaged over the classes."""
    return MulticlassF1Score(num_classes, average="macro")
