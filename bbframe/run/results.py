"""What a run says: what was built before it trains; afterwards metrics.json, the pictures and the closing table."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bbframe.backbone import Backbone
from bbframe.data.data_module import DataModule
from bbframe.files import write_text
from bbframe.report.charts import learning_curves
from bbframe.report.classification_report import write_classification_report
from bbframe.report.detection_report import write_detection_report
from bbframe.report.profile import count_parameters
from bbframe.report.run_table import run_table
from bbframe.run.configuration import Configuration
from bbframe.tasks.task import Task

log = logging.getLogger("bbframe")
REPORTS: dict[str, Callable[..., None]] = {
    "classification": write_classification_report,
    "detection": write_detection_report,
}


def log_network(plan: Configuration, task: Task, data: DataModule, macs: float) -> None:
    """Log what was built: backbone, maps, head, size, weights and data."""
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
    log.info("weights   %s", backbone.load_report or plan.run.ckpt_path or "fresh")
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


def log_skipped(plan: Configuration, data: DataModule) -> None:
    """Log every image that was left out, and the limit on their number."""
    for name, why in data.skipped.items():
        log.warning("skipped %s: %s", name, why)
    if data.skipped:
        most = getattr(plan.data, "max_errors", 0)
        log.warning("skipped %d %s; data.max_errors=%d may be", len(data.skipped), data.skipped_kind, most)


def write_results(plan: Configuration, task: Task, data: DataModule, summary: dict[str, Any], folder: Path) -> None:
    """Write metrics.json and the pictures: learning curves, and what the task shows of the tested images."""
    write_text(folder / "metrics.json", json.dumps(finite(summary), indent=2) + "\n")
    pictures, history = folder / "pictures", folder / "metrics.csv"
    pictures.mkdir(exist_ok=True)
    if plan.run.train and not plan.run.debug and history.is_file():
        learning_curves(history, pictures / "learning_curves.png", task.monitor, summary["test"])
    if task.predictions:
        REPORTS[plan.task.name](task, data, folder)
    log.info("\n%s", run_table(summary))


def finite(data: Any) -> Any:
    """Plain data with null in the place of NaN and infinities, which JSON does not have."""
    if isinstance(data, dict):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, list):
        return [finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
