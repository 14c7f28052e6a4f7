"""What a run tells a person: what was built, before it trains, and how good it is, afterwards."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from bbframe.auto import Backbone
from bbframe.data.data_module import DataModule
from bbframe.report import classification_report, detection_report
from bbframe.report.charts import learning_curves
from bbframe.report.profile import count_parameters
from bbframe.run.configuration import Configuration
from bbframe.tasks.task import Task

log = logging.getLogger("bbframe")
REPORTS: dict[str, Any] = {"classification": classification_report, "detection": detection_report}


def describe(plan: Configuration, task: Task, data: DataModule, macs: float) -> None:
    """Say what was built, before training starts."""
    backbone = task.backbone
    names = backbone.stage_names
    maps = ", ".join(
        f"{name} ({channels} channels, stride {stride})"
        for name, channels, stride in zip(backbone.out_features, backbone.channels, backbone.strides, strict=True)
    )
    built = f"built {names[0]} to {names[backbone.num_built - 1]}"
    log.info("backbone  %s (%s): %s", plan.backbone_name, backbone.backbone_type.value, built)
    log.info("maps      %s; the %s head reads %s", maps, plan.head.name, ", ".join(task.reading))
    for word, text in task.notes().items():
        log.info("%-9s %s", word, text)
    log.info("size      %.2f M parameters, %.3f GMACs an image", count_parameters(task) / 1e6, macs)
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


def show(plan: Configuration, task: Task, data: DataModule, tested: dict[str, float], folder: Path) -> None:
    """The pictures of a run: learning curves, and what its task shows of the tested images."""
    pictures = folder / "pictures"
    pictures.mkdir(exist_ok=True)
    if plan.run.train and not plan.run.debug:
        learning_curves(folder / "metrics.csv", pictures / "learning_curves.png", task.monitor, tested)
    if task.predictions:
        REPORTS[plan.task.name].write(task, data, folder)
