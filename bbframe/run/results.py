"""What a run says: what was built before it trains; afterwards metrics.json, the pictures and the closing table."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

from bbframe.data.boxes.box_data import DetectionDataModule
from bbframe.data.data_module import DataModule, ImageDataModule
from bbframe.data.data_summary import summarise
from bbframe.files import write_text
from bbframe.report.charts import learning_curves
from bbframe.report.classification_report import write_classification_report
from bbframe.report.detection_report import write_detection_report
from bbframe.report.page.run_page import write_run_page
from bbframe.report.profile import count_parameters
from bbframe.report.tables import labelled, number
from bbframe.run.configuration import Configuration
from bbframe.tasks.classification import Classification
from bbframe.tasks.detection import Detection
from bbframe.tasks.task import Task

log = logging.getLogger("bbframe")


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
        stages = backbone.parameter_stages()
        frozen = [names[stages[name]] for name, p in backbone.named_parameters() if not p.requires_grad]
        log.info("frozen    %s", ", ".join(dict.fromkeys(frozen)))
    height, width = data.image_size
    counts = ", ".join(f"{count} {part}" for part, count in data.counts.items())
    log.info("data      %s: %s images of %dx%d, %d classes", plan.data.name, counts, height, width, data.num_classes)
    if plan.run.test and data.test_part != "test":
        log.info("          there are no test images: the validation images are tested")


def log_images(data: DataModule, stride: int) -> dict[str, Any]:
    """Log what the images tell before anything trains; returns the counts that metrics.json keeps.

    `stride` belongs to the finest map. What it cannot find out ends no run, and is None.
    """
    kept: dict[str, Any] = {"exclude": data.exclusion.counts()} if data.exclusion.file else {}
    try:
        summary = summarise(data, stride)
        for word, text in summary.lines():
            log.info("%-9s %s", word, text)
        return {**kept, "data_summary": summary.counts()}
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        log.warning("data: its images could not be summed up: %s", reason)
        return {**kept, "data_summary": None}


def write_results(plan: Configuration, task: Task, data: DataModule, summary: dict[str, Any], folder: Path) -> None:
    """Write the pictures and, when all the rest is there, metrics.json, then the page, and log the closing table.

    The tested images are shown for classification and detection, and for tasks that extend either.
    """
    pictures, history = folder / "pictures", folder / "metrics.csv"
    pictures.mkdir(exist_ok=True)
    if plan.run.train and not plan.run.debug and history.is_file():
        learning_curves(history, pictures / "learning_curves.png", task.monitor, summary["test"])
    if task.predictions and isinstance(task, Classification) and isinstance(data, ImageDataModule):
        write_classification_report(task, data, folder)
    if task.predictions and isinstance(task, Detection) and isinstance(data, DetectionDataModule):
        write_detection_report(task, data, folder)
    write_text(folder / "metrics.json", json.dumps(finite(summary), indent=2) + "\n")
    write_report_page(task, data, folder)
    log.info("\n%s", run_table(summary))


def write_report_page(task: Task, data: DataModule, folder: Path) -> None:
    """Write report.html; a failure is one line that says how to make it again, because the results are safe by now."""
    try:
        write_run_page(folder, data, task)
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        log.warning("the page could not be made: %s; this makes it again: bbframe report %s", reason, folder)


def write_failure_page(folder: Path, error: BaseException) -> None:
    """Write the page of a run that failed, if it can be written; an interrupted run has none, because it may go on."""
    if isinstance(error, Exception):
        with suppress(Exception):  # it must not hide what happened
            write_run_page(folder)


def finite(data: Any) -> Any:
    """Plain data with null in the place of NaN and infinities, which JSON does not have."""
    return json.loads(json.dumps(data), parse_constant=lambda name: None)


def run_table(summary: dict[str, Any]) -> str:
    """The end of one run, from its metrics.json, a line each; a train or test not done is left out."""
    metric, seconds = summary["metric"], summary["seconds"]
    lines = {
        "backbone": summary["backbone"],
        "source": summary["source"],
        "parameters": f"{summary['params'] / 1e6:.2f} M",
        "GMACs": number(summary["gmacs"], ".3g"),
        "epochs": summary["epochs"],
    }
    if metric in summary["val"]:
        lines[f"val/{metric}"] = f"{summary['val'][metric]:.4f} (best, epoch {summary['best_epoch']})"
    tested = metric if metric in summary["test"] else next(iter(summary["test"]), "")
    if tested:
        lines[f"test/{tested}"] = f"{summary['test'][tested]:.4f}{_interval(summary, tested)}"
    parts = ", ".join(f"{part} {value:.1f}" for part, value in seconds.items() if part != "total" and value)
    lines["seconds"] = f"{seconds['total']:.1f}" + (f" ({parts})" if parts else "")
    lines["folder"] = summary["folder"]
    return "\n".join(labelled(lines))


def _interval(summary: dict[str, Any], metric: str) -> str:
    if metric not in summary["test_low"]:
        return ""
    return f" ({summary['test_low'][metric]:.3f} to {summary['test_high'][metric]:.3f}, 95 % bootstrap)"
