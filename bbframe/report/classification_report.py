"""What a classification run leaves of its test: a table, the confusion matrix, predictions, the worst mistakes."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import torch

from bbframe.data.data_module import ImageDataModule
from bbframe.files import write_text
from bbframe.report.confusion_matrix import confusion_matrix
from bbframe.report.image_grid import as_image, classified_grid
from bbframe.tasks.classification import Classification

SHOWN = 24  # images in a picture of predictions


def write_classification_report(task: Classification, data: ImageDataModule, folder: Path) -> None:
    """Write predictions.csv and the pictures of a run folder."""
    pictures, rows = folder / "pictures", task.predictions
    _write_predictions(task, data, folder / "predictions.csv")
    confusion_matrix(task.confusion.double().numpy(), data.class_names, pictures / "confusion_matrix.png")
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:SHOWN].tolist()
    right = sum(label == predicted for _, label, predicted, _, _ in rows)
    title = f"Test images: {right} of {len(rows)} right"
    _grid(data, [rows[i] for i in order], pictures / "predictions.png", title)
    worst = sorted((row for row in rows if row[1] != row[2]), key=lambda row: -row[4])[:SHOWN]
    if worst:
        _grid(data, worst, pictures / "worst_mistakes.png", "Worst mistakes first: the highest loss")


def _write_predictions(task: Classification, data: ImageDataModule, path: Path) -> None:
    """Write a row for each tested image: its name, its class, the predicted class, the probability and the loss."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["image", "class", "predicted", "probability", "loss"])
    for index, label, predicted, share, loss in task.predictions:
        names = data.class_names[label], data.class_names[predicted]
        writer.writerow([data.source(data.test_part, index), *names, f"{share:.6f}", f"{loss:.6f}"])
    write_text(path, table.getvalue())


def _grid(data: ImageDataModule, rows: Sequence[tuple[int, int, int, float, float]], out: Path, title: str) -> None:
    names = data.class_names
    images = [as_image(data.picture(data.test_part, index).numpy()) for index, *_ in rows]
    captions = [
        f"{names[predicted]} ({share:.0%})" + ("" if label == predicted else f", is {names[label]}")
        for _, label, predicted, share, _ in rows
    ]
    classified_grid(images, captions, [row[1] == row[2] for row in rows], out, title)
