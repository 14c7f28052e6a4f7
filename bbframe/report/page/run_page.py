"""The page of a run: report.html in its folder, made from the files there and, where they are at hand, its images."""

from __future__ import annotations

from pathlib import Path

from bbframe.data.boxes.box_data import DetectionDataModule
from bbframe.data.data_module import DataModule, ImageDataModule
from bbframe.report.page.classification_sections import classification_sections
from bbframe.report.page.detection_sections import detection_sections
from bbframe.report.page.finished_run import FinishedRun, read_run
from bbframe.report.page.html_page import Section, write_page
from bbframe.report.page.run_sections import (
    asked_sections,
    curve_section,
    data_sections,
    environment_section,
    failure_sections,
    rate_sections,
    result_section,
    weights_sections,
)
from bbframe.tasks.classification import Classification
from bbframe.tasks.detection import Detection
from bbframe.tasks.task import Task

PAGE = "report.html"  # in the folder of a run or a sweep


def write_run_page(folder: Path, data: DataModule | None = None, task: Task | None = None, missing: str = "") -> Path:
    """Write the page of the run in `folder`, and return its path.

    `data` are the run's images and `task` its trained network; without them the page has no photos and no heat maps,
    and says what is `missing`. Raises ValueError for a file in the folder that is broken.
    """
    run = read_run(folder)
    sections = [
        *failure_sections(run),
        result_section(run),
        *asked_sections(run),
        *curve_section(run),
        *rate_sections(run),
        *task_sections(run, data, task, missing),
        *data_sections(run, data),
        *weights_sections(run),
        environment_section(run),
    ]
    write_page(folder / PAGE, title_of(run), sections, subtitle_of(run))
    return folder / PAGE


def task_sections(run: FinishedRun, data: DataModule | None, task: Task | None, missing: str) -> list[Section]:
    """What the task's own results show, by the files that they left."""
    if (run.folder / "predictions.csv").is_file():
        images = data if isinstance(data, ImageDataModule) else None
        network = task if isinstance(task, Classification) else None
        return classification_sections(run, images, network, missing)
    scenes = data if isinstance(data, DetectionDataModule) else None
    return detection_sections(run, scenes, task if isinstance(task, Detection) else None, missing)


def title_of(run: FinishedRun) -> str:
    """What a page calls the run: its name or its backbone, and its data."""
    backbone = run.metrics.get("backbone") or (run.config.get("backbone") or {}).get("model_type", "run")
    data = (run.config.get("data") or {}).get("name", "")
    return f"{run.metrics.get('name') or backbone} on {data}" if data else str(backbone)


def subtitle_of(run: FinishedRun) -> str:
    """Task, backbone, head, time and folder of a run, and whether it ended."""
    groups = [(run.config.get(group) or {}).get("name") for group in ("task", "head")]
    words = [groups[0], run.metrics.get("backbone"), groups[1] and f"head {groups[1]}", run.environment.get("time")]
    tags = ", ".join(map(str, run.metrics.get("tags") or ()))
    words += [tags and f"tags {tags}", run.folder.name]
    if not run.metrics:
        words.insert(0, "this run failed" if run.error else "this run has not ended")
    return " \u00b7 ".join(str(word) for word in words if word)
