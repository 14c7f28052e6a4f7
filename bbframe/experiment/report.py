"""What a run tells a person: what was built, before it trains, and pictures of how good it is, afterwards."""

from __future__ import annotations

import csv
import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from bbframe.auto import Backbone
from bbframe.data.base import ImageDataModule
from bbframe.experiment.charts import learning_curves
from bbframe.experiment.options import Plan
from bbframe.experiment.pictures import confusion_matrix, image_grid
from bbframe.experiment.profile import count_parameters
from bbframe.tasks.classification import Classification

log = logging.getLogger("bbframe")
SHOWN = 24  # images in a picture of predictions


def describe(plan: Plan, backbone: Backbone, data: ImageDataModule, macs: float) -> None:
    """Say what was built, before training starts."""
    names = backbone.stage_names
    maps = ", ".join(
        f"{name} ({channels} channels, stride {stride})"
        for name, channels, stride in zip(backbone.out_features, backbone.channels, backbone.strides, strict=True)
    )
    built = f"built {names[0]} to {names[backbone.num_built - 1]}"
    log.info("backbone  %s (%s): %s", plan.backbone_name, backbone.backbone_type.value, built)
    log.info("maps      %s; the %s head reads %s", maps, plan.head.name, _read(plan, backbone))
    log.info("size      %.2f M parameters, %.3f GMACs an image", count_parameters(backbone) / 1e6, macs)
    if backbone.load_report is not None:
        log.info("weights   %s", backbone.load_report)
    elif plan.run.ckpt_path is not None:
        log.info("weights   %s", plan.run.ckpt_path)
    else:
        log.info("weights   fresh")
    if plan.task.freeze != "none":
        frozen = [names[stage] for name, stage in backbone.parameter_stages().items() if _is_frozen(backbone, name)]
        log.info("frozen    %s", ", ".join(dict.fromkeys(frozen)))
    height, width = data.image_size
    counts = ", ".join(f"{count} {part}" for part, count in data.counts.items())
    log.info("data      %s: %s images of %dx%d, %d classes", plan.data.name, counts, height, width, data.num_classes)
    if plan.run.test and data.test_part != "test":
        log.info("          there are no test images: the validation images are tested")


def _is_frozen(backbone: Backbone, name: str) -> bool:
    return not backbone.get_parameter(name).requires_grad


def _read(plan: Plan, backbone: Backbone) -> str:
    return "all" if plan.head.name == "multi_level" else backbone.out_features[-1]


def write_predictions(task: Classification, data: ImageDataModule, path: Path) -> None:
    """A table of the tested images: what each is called, its class, the predicted one, its probability, the loss."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "class", "predicted", "probability", "loss"])
        for index, label, predicted, share, loss in task.predictions:
            names = data.class_names[label], data.class_names[predicted]
            writer.writerow([data.source(data.test_part, index), *names, f"{share:.6f}", f"{loss:.6f}"])


def draw(plan: Plan, task: Classification, data: ImageDataModule, tested: dict[str, float], folder: Path) -> None:
    """Pictures of a run: learning curves, the confusion matrix, some test images, and the worst mistakes."""
    pictures = folder / "pictures"
    pictures.mkdir(exist_ok=True)
    if plan.run.train and not plan.run.debug:
        learning_curves(folder / "metrics.csv", pictures / "learning_curves.png", task.monitor, tested)
    if not task.predictions:
        return
    confusion_matrix(task.confusion, data.class_names, pictures / "confusion_matrix.png")
    generator = torch.Generator().manual_seed(0)
    shown = [task.predictions[i] for i in torch.randperm(len(task.predictions), generator=generator)[:SHOWN].tolist()]
    right = sum(label == predicted for _, label, predicted, _, _ in task.predictions)
    title = f"Test images: {right} of {len(task.predictions)} right"
    _grid(data, shown, pictures / "predictions.png", title)
    worst = sorted((row for row in task.predictions if row[1] != row[2]), key=lambda row: -row[4])[:SHOWN]
    if worst:
        _grid(data, worst, pictures / "worst_mistakes.png", "Worst mistakes first: the highest loss")


def _grid(data: ImageDataModule, rows: Sequence[tuple[int, int, int, float, float]], out: Path, title: str) -> None:
    names = data.class_names
    images = torch.stack([data.picture(data.test_part, index) for index, *_ in rows]).float() / 255
    captions = [
        f"{names[predicted]} ({share:.0%})" + ("" if label == predicted else f", is {names[label]}")
        for _, label, predicted, share, _ in rows
    ]
    image_grid(images, captions, [row[1] == row[2] for row in rows], out, title)
