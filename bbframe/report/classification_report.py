"""What a classification run leaves of its test: a table, the confusion matrix, predictions, the worst mistakes."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import torch

from bbframe.data.data_module import ImageDataModule
from bbframe.report.pictures import confusion_matrix, image_grid
from bbframe.tasks.classification import Classification

SHOWN = 24  # images in a picture of predictions


def write(task: Classification, data: ImageDataModule, folder: Path) -> None:
    """Write predictions.csv and the pictures of a run folder."""
    pictures = folder / "pictures"
    _write_predictions(task, data, folder / "predictions.csv")
    confusion_matrix(task.confusion, data.class_names, pictures / "confusion_matrix.png")
    generator = torch.Generator().manual_seed(0)
    shown = [task.predictions[i] for i in torch.randperm(len(task.predictions), generator=generator)[:SHOWN].tolist()]
    right = sum(label == predicted for _, label, predicted, _, _ in task.predictions)
    title = f"Test images: {right} of {len(task.predictions)} right"
    _grid(data, shown, pictures / "predictions.png", title)
    worst = sorted((row for row in task.predictions if row[1] != row[2]), key=lambda row: -row[4])[:SHOWN]
    if worst:
        _grid(data, worst, pictures / "worst_mistakes.png", "Worst mistakes first: the highest loss")


def _write_predictions(task: Classification, data: ImageDataModule, path: Path) -> None:
    """A table of the tested images: what each is called, its class, the predicted one, its probability, the loss."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "class", "predicted", "probability", "loss"])
        for index, label, predicted, share, loss in task.predictions:
            names = data.class_names[label], data.class_names[predicted]
            writer.writerow([data.source(data.test_part, index), *names, f"{share:.6f}", f"{loss:.6f}"])


def _grid(data: ImageDataModule, rows: Sequence[tuple[int, int, int, float, float]], out: Path, title: str) -> None:
    names = data.class_names
    images = torch.stack([data.picture(data.test_part, index) for index, *_ in rows]).float() / 255
    captions = [
        f"{names[predicted]} ({share:.0%})" + ("" if label == predicted else f", is {names[label]}")
        for _, label, predicted, share, _ in rows
    ]
    image_grid(images, captions, [row[1] == row[2] for row in rows], out, title)
