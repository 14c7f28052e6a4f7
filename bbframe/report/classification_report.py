"""What a classification run leaves of its test: a table, the confusion matrix, predictions, the worst mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from bbframe.data.data_module import ImageDataModule
from bbframe.files import visible
from bbframe.report.confusion_matrix import confusion_matrix
from bbframe.report.image_grid import as_image, classified_grid
from bbframe.report.reliability_diagram import Confidences, reliability_diagram
from bbframe.report.tables import write_csv
from bbframe.tasks.classification import Classification, ClassifiedImage

SHOWN = 24  # images in a picture of predictions


def write_classification_report(task: Classification, data: ImageDataModule, folder: Path) -> None:
    """Write predictions.csv, a row for each tested image, and the pictures of a run folder."""
    pictures, rows, names = folder / "pictures", task.predictions, data.class_names
    table: list[Sequence[object]] = [["image", "class", "predicted", "probability", "true_probability", "loss"]]
    for row in rows:
        numbers = (f"{number:.6f}" for number in (row.probability, row.true_probability, row.loss))
        words = data.source(data.test_part, row.image), names[row.label], names[row.predicted]
        table.append([*map(visible, words), *numbers])
    write_csv(folder / "predictions.csv", table)
    confusion_matrix(task.confusion.double().numpy(), names, pictures / "confusion_matrix.png")
    _reliability(task, pictures / "reliability.png")
    wrong = [row for row in rows if row.label != row.predicted]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:SHOWN].tolist()
    title = f"Test images: {len(rows) - len(wrong)} of {len(rows)} right"
    _grid(data, [rows[i] for i in order], pictures / "predictions.png", title)
    if wrong:
        worst = sorted(wrong, key=lambda row: -row.loss)[:SHOWN]
        _grid(data, worst, pictures / "worst_mistakes.png", "Worst mistakes first: the highest loss")


def _reliability(task: Classification, out: Path) -> None:
    rows, temperature = task.predictions, task.calibrated.temperature
    panels = [Confidences("as trained", np.array([row.probability for row in rows]))]
    if temperature is not None:
        scaled = np.array([row.scaled_probability for row in rows])
        panels.append(Confidences(f"temperature {temperature:.3g}", scaled))
    reliability_diagram(panels, np.array([row.label == row.predicted for row in rows]), out)


def _grid(data: ImageDataModule, rows: Sequence[ClassifiedImage], out: Path, title: str) -> None:
    names, captions = data.class_names, []
    for row in rows:
        truth = "" if row.label == row.predicted else f", is {names[row.label]}"
        captions.append(f"{names[row.predicted]} ({row.probability:.0%}){truth}")
    images = [as_image(data.picture(data.test_part, row.image).numpy()) for row in rows]
    classified_grid(images, captions, [row.label == row.predicted for row in rows], out, title)
