"""The part of a page that belongs to a detection run: images, errors by kind and size, precision against recall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bbframe.data.boxes.box_data import DetectionDataModule
from bbframe.report.detection_errors import IGNORED, KINDS, OUTCOMES, DetectionErrors, detection_errors
from bbframe.report.page.detection_gallery import MEANINGS, gallery
from bbframe.report.page.finished_run import FinishedRun
from bbframe.report.page.html_page import Section
from bbframe.report.page.run_sections import decimal
from bbframe.report.page.saved_detections import find_tested_images, read_detections, read_results
from bbframe.tasks.average_precision import RECALLS, average_precision, precision_curve
from bbframe.tasks.detection import Detection
from bbframe.tasks.detection_matches import MOST, SIZES, FoundObjects, Matches, TrueObjects, match_images
from bbframe.tasks.precision_metric import DetectedImage

CURVES = 12  # classes that have a curve each
EVERY = 5  # of 101 recalls one in five is drawn
PHOTO_NOTE = (
    "True boxes are dashed, predicted ones solid, in the colour of what became of them. The slider hides detections "
    "of a lower score; it begins where the F1 is best. A switch hides a kind or a class. The images are ordered by "
    "the errors that are left."
)
ERROR_NOTE = (
    "What became of each detection (TIDE, arXiv:2008.08115), at an overlap of 0.5. The gain is what mAP50 would rise "
    "by without the errors of one kind; gains do not add up."
)
SIZE_NOTE = "COCO's sizes, in pixels of the original: small objects have at most 32 x 32, large ones at least 96 x 96."
CLASS_NOTE = "Objects found and missed, and errors, at the score with the best F1:"


def detection_sections(
    run: FinishedRun, data: DetectionDataModule | None, task: Detection | None, missing: str
) -> list[Section]:
    """The sections about the tested images, none without a test.

    They follow from the `task` that has tested the `data`, or from the predictions.json of the run and its `data`.
    Without these, `missing` says why.
    """
    file = run.folder / "predictions.json"
    if not file.is_file():
        return []
    most = max(MOST, int((run.config.get("head") or {}).get("detections_per_image") or 0))
    if data is not None and task is not None and task.predictions:
        return sections_of_images(task.predictions, data, most)
    indices = None if data is None else find_tested_images(run, data)
    if data is None or indices is None:
        count = len(read_results(file))
        note = missing if data is None else "The images or their objects have changed since they were tested."
        return [Section("Images", "facts", {"facts": [["detections", f"{count:,}, in predictions.json"]]}, note)]
    return sections_of_images(read_detections(run, data, indices), data, most)


def sections_of_images(rows: Sequence[DetectedImage], data: DetectionDataModule, most: int = MOST) -> list[Section]:
    """The gallery of the tested images `rows` and what was measured by their boxes, and by their masks if any.

    The `most` surest detections of a class in an image count.
    """
    images = [(row.found, row.truth) for row in rows]
    errors = detection_errors(images, data.num_classes, most=most)
    shown = gallery(rows, errors, data)
    count = len(shown["images"])
    which = f"All {count:,} tested images"
    if count < len(rows):
        which = f"The {count:,} of {len(rows):,} tested images with the most errors"
    sections = [Section("Images", "detections", shown, f"{which}. {PHOTO_NOTE}")]
    sections += _measured(images, data.class_names, errors, False, most)
    if shown["masks"]:
        errors = detection_errors(images, data.num_classes, masks=True, most=most)
        sections += _measured(images, data.class_names, errors, True, most)
    return sections


def _measured(
    images: Sequence[tuple[FoundObjects, TrueObjects]],
    names: Sequence[str],
    errors: DetectionErrors,
    masks: bool,
    most: int,
) -> list[Section]:
    """The tables and charts by boxes or by `masks`."""
    matches = match_images(images, len(names), masks=masks, most=most)
    before, gains = "Mask " if masks else "", errors.gains()
    error_table = _error_table(errors, gains)
    size_section = Section(f"{before}sizes".capitalize(), "table", _size_table(images, errors, masks, most), SIZE_NOTE)
    heading = f"{before}errors".capitalize()
    if not len(matches.true_labels):
        return [Section(heading, "table", error_table, ERROR_NOTE), size_section]
    chart, note = _curve_chart(matches, names)
    return [
        Section(heading, "chart", {"charts": [_gain_chart(gains)]}, ERROR_NOTE),
        Section("", "table", error_table),
        size_section,
        Section(f"{before}precision and recall".capitalize(), "chart", {"charts": [chart]}, note),
        Section("", "table", _class_table(matches, errors, names), f"{CLASS_NOTE} {errors.best_threshold():.2f}."),
    ]


def _gain_chart(gains: Mapping[str, float]) -> dict[str, Any]:
    order = sorted(KINDS, key=lambda kind: -gains[kind])
    points = [[kind, round(gains[kind], 4)] for kind in order]
    return {
        "title": "What mending a kind of error would add to mAP50",
        "kind": "bar",
        "x": {"title": "kind of error", "names": order},
        "y": {"title": "gain in mAP50"},
        "series": [{"name": "gain", "points": points}],
    }


def _error_table(errors: DetectionErrors, gains: Mapping[str, float]) -> dict[str, Any]:
    score = errors.best_threshold()
    every, sure = errors.counts(), errors.counts(score)
    rows: list[list[Any]] = [["right", sure["right"], every["right"], None, MEANINGS["right"]]]
    rows += [[kind, sure[kind], every[kind], number_cell(gains[kind]), MEANINGS[kind]] for kind in KINDS]
    columns = [
        {"title": "detection"},
        {"title": f"score ≥ {score:.2f}", "number": True, "hint": "the score with the best F1"},
        {"title": "any score", "number": True},
        {"title": "gain in mAP50", "number": True},
        {"title": "meaning"},
    ]
    return {"columns": columns, "rows": rows}


def _size_table(
    images: Sequence[tuple[FoundObjects, TrueObjects]], errors: DetectionErrors, masks: bool, most: int
) -> dict[str, Any]:
    classes = errors.matches.num_classes
    rows: list[list[Any]] = []
    areas = np.concatenate([np.zeros(0), *(truth.area[~truth.crowd] for _, truth in images)])
    for size, (low, high) in SIZES.items():
        part = match_images(images, classes, masks=masks, most=most, areas=(low, high))
        inside = (areas >= low) & (areas <= high)
        found = int((errors.found[inside] >= 0).sum())
        precision = average_precision(part)
        means = [np.nanmean(values) if inside.any() else np.nan for values in (precision, precision[:1])]
        rows.append([size, int(inside.sum()), found, *map(number_cell, means)])
    columns = [{"title": "size"}] + [
        {"title": title, "number": True} for title in ("objects", "found", "mAP", "mAP50")
    ]
    return {"columns": columns, "rows": rows}


def _curve_chart(matches: Matches, names: Sequence[str]) -> tuple[dict[str, Any], str]:
    """The curve of each class at an overlap of 0.5, of many classes the best and the worst, and their mean, dashed."""
    labels = np.unique(matches.true_labels).tolist()
    curves = {label: precision_curve(matches, label) for label in labels}
    order = sorted(labels, key=lambda label: -curves[label].mean())
    shown = order if len(order) <= CURVES else [*order[: CURVES // 2], *order[-CURVES // 2 :]]
    series = [
        {"name": f"{names[label]} ({curves[label].mean():.3f})", "points": _points(curves[label]), "dashed": i >= 6}
        for i, label in enumerate(shown)
    ]
    mean = np.mean([*curves.values()], axis=0)
    series.append({"name": f"mean ({mean.mean():.3f})", "points": _points(mean), "dashed": True, "colour": "--ink"})
    chart = {
        "title": "Precision against recall, at an overlap of 0.5",
        "kind": "line",
        "x": {"title": "recall", "min": 0, "max": 1},
        "y": {"title": "precision", "min": 0, "max": 1},
        "series": series,
    }
    note = "In brackets the average precision at this overlap."
    return chart, note if shown == order else f"The {CURVES // 2} best and the {CURVES // 2} worst classes. {note}"


def _points(curve: np.ndarray) -> list[list[float]]:
    return [[round(float(RECALLS[i]), 2), round(float(curve[i]), 4)] for i in range(0, len(RECALLS), EVERY)]


def _class_table(matches: Matches, errors: DetectionErrors, names: Sequence[str]) -> dict[str, Any]:
    precision = average_precision(matches)
    kinds = OUTCOMES[1:IGNORED]
    columns = [{"title": "class"}] + [
        {"title": title, "number": True} for title in ("objects", "found", "AP", "AP50", *kinds, "missed")
    ]
    score = errors.best_threshold()
    missed = np.maximum(errors.found, errors.reached) < score
    sure = errors.matches.scores >= score
    rows: list[list[Any]] = []
    for label, name in enumerate(names):
        own, said = errors.matches.true_labels == label, errors.matches.labels == label
        scores = map(number_cell, (precision[:, label].mean(), precision[0, label]))
        wrong = np.bincount(errors.outcome[said & sure], minlength=len(OUTCOMES))[1:IGNORED].tolist()
        rows.append(
            [name, int(own.sum()), int((errors.found[own] >= score).sum()), *scores, *wrong, int((missed & own).sum())]
        )
    return {"columns": columns, "rows": rows, "filter": len(names) > 20}


def number_cell(value: float) -> dict[str, Any] | None:
    """A cell of a table that shows four decimals, None for NaN."""
    return None if np.isnan(value) else {"text": decimal(value), "sort": float(value)}
