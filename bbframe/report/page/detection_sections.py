"""The part of a page that belongs to a detection run: images, errors by kind and size, precision against recall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bbframe.data.boxes.box_data import DetectionDataModule
from bbframe.files import visible
from bbframe.report.detection_errors import IGNORED, KINDS, OUTCOMES, DetectionErrors, detection_errors
from bbframe.report.page.detection_gallery import gallery
from bbframe.report.page.html_page import Section
from bbframe.tasks.average_precision import RECALLS, average_precision, precision_curve
from bbframe.tasks.detection import DetectedImage
from bbframe.tasks.detection_matches import MOST, SIZES, FoundObjects, Matches, TrueObjects, match_images

CURVES = 12  # classes that have a curve each
EVERY = 5  # of 101 recalls one in five is drawn
MEANINGS = {
    "wrong class": "on an object, but of another class",
    "badly placed": "of the right class, overlapping the object by 0.1 to 0.5",
    "both": "of another class and badly placed",
    "duplicate": "on an object that a surer detection has found",
    "background": "where there is no object",
    "missed": "an object without any of the detections above",
}
PHOTO_NOTE = (
    "True boxes are dashed, predicted ones solid, in the colour of what became of them. The slider hides detections "
    "of a lower score; a switch hides a kind or a class. The images are ordered by the errors that are left."
)
ERROR_NOTE = (
    "What became of each detection (TIDE, arXiv:2008.08115), at an overlap of 0.5. The gain is what mAP50 would rise "
    "by without the errors of one kind; gains do not add up."
)
SIZE_NOTE = "COCO's sizes, in pixels of the original: small objects have at most 32 x 32, large ones at least 96 x 96."
CLASS_NOTE = "Objects found and missed, and errors: at a score of 0.5 or more."


def detection_sections(rows: Sequence[DetectedImage], data: DetectionDataModule, most: int = MOST) -> list[Section]:
    """The sections of the tested images `rows`, in which the `most` surest detections of a class count.

    Where there are masks, errors and curves are there twice: by boxes and by masks.
    """
    images, part = [(row.found, row.truth) for row in rows], data.test_part
    errors = detection_errors(images, data.num_classes, most=most)
    shown = gallery(
        rows, errors, data.class_names, data.parts[part].read, lambda index: visible(data.source(part, index))
    )
    count = len(shown["images"])
    which = f"All {count} tested images" if count == len(rows) else f"The {count} of {len(rows)} with the most errors"
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
    kind, gains = "Mask e" if masks else "E", errors.gains()
    sections = [
        Section(f"{kind}rrors", "chart", {"charts": [_gain_chart(gains)]}, ERROR_NOTE),
        Section("", "table", _error_table(errors, gains)),
        Section("Mask sizes" if masks else "Sizes", "table", _size_table(images, errors, masks, most), SIZE_NOTE),
    ]
    if len(matches.true_labels):
        chart, note = _curve_chart(matches, names)
        sections += [
            Section("Mask precision" if masks else "Precision and recall", "chart", {"charts": [chart]}, note),
            Section("", "table", _class_table(matches, errors, names)),
        ]
    return sections


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
    every, sure = errors.counts(), errors.counts(0.5)
    rows: list[list[Any]] = [
        ["right", "of the right class, overlapping the object by 0.5", sure["right"], every["right"], None]
    ]
    rows += [[kind, MEANINGS[kind], sure[kind], every[kind], round(gains[kind], 4)] for kind in KINDS]
    columns = [
        {"title": "detection"},
        {"title": "meaning"},
        {"title": "score ≥ 0.5", "number": True},
        {"title": "any score", "number": True},
        {"title": "gain in mAP50", "number": True},
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
        means: list[float | None] = [None, None]
        if inside.any():
            means = [round(float(np.nanmean(values)), 4) for values in (precision, precision[:1])]
        rows.append([size, int(inside.sum()), found, *means])
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
    missed = np.maximum(errors.found, errors.reached) < 0.5
    sure = errors.matches.scores >= 0.5
    rows: list[list[Any]] = []
    for label, name in enumerate(names):
        own, said = errors.matches.true_labels == label, errors.matches.labels == label
        scores = [
            None if np.isnan(v) else round(float(v), 4) for v in (precision[:, label].mean(), precision[0, label])
        ]
        wrong = np.bincount(errors.outcome[said & sure], minlength=len(OUTCOMES))[1:IGNORED].tolist()
        rows.append(
            [name, int(own.sum()), int((errors.found[own] >= 0.5).sum()), *scores, *wrong, int((missed & own).sum())]
        )
    return {"columns": columns, "rows": rows, "filter": len(names) > 20, "caption": CLASS_NOTE}
