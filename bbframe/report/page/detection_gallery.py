"""The tested images of a detection run with their true and predicted objects, as a page shows them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from bbframe.data.boxes.box_data import Annotated, DetectionDataModule
from bbframe.imaging.decode import reason
from bbframe.report.detection_errors import BOTH, IGNORED, OUTCOMES, DetectionErrors
from bbframe.report.page.mask_outlines import mask_outline
from bbframe.report.page.thumbnails import data_uri
from bbframe.tasks.precision_metric import DetectedImage

LEAST = 50  # thousandths: detections of a lower score are not shown
SIDE = 480  # pixels: the longer side of a photo
BYTES, IMAGES = 4_500_000, 400  # of all photos and objects together; the most images
MEANINGS = {
    "right": "of the right class, overlapping the object by 0.5",
    "wrong class": "on an object, but of another class",
    "badly placed": "of the right class, overlapping the object by 0.1 to 0.5",
    "both": "of another class and badly placed",
    "duplicate": "on an object that a surer detection has found",
    "background": "where there is no object",
    "missed": "an object that no detection shows, not even one of another class or badly placed",
}


def gallery(
    rows: Sequence[DetectedImage], errors: DetectionErrors, data: DetectionDataModule, most_bytes: int = BYTES
) -> dict[str, Any]:
    """The data of the template `detections`: the images with the most errors, as far as `most_bytes` reach.

    Their order counts errors at the score of the best F1, at which the slider begins. Scores are thousandths, rounded
    down, and coordinates pixels of the original image.
    """
    starts = np.searchsorted(errors.matches.image, np.arange(len(rows) + 1))
    images: list[dict[str, Any]] = []
    size, start = 0, errors.best_threshold()
    for place in errors_per_image(errors, len(rows), start).argsort(kind="stable")[::-1][:IMAGES]:
        image = rows[place]
        shown = {
            "name": data.source(data.test_part, image.image),
            **_photo(data.parts[data.test_part], image.image),
            "truth": _true_rows(image),
            "found": _found_rows(image, errors, range(starts[place], starts[place + 1])),
        }
        size += len(json.dumps(shown))
        if size > most_bytes and images:
            break
        images.append(shown)
    return {
        "images": images,
        "classes": data.class_names,
        "outcomes": [{"name": name, "meaning": MEANINGS[name]} for name in (*OUTCOMES[:IGNORED], "missed")],
        "least": LEAST,
        "start": round(1000 * start),
        "masks": any(image.found.masks is not None for image in rows),
    }


def errors_per_image(errors: DetectionErrors, count: int, threshold: float) -> np.ndarray:
    """How many detections of a score of `threshold` or more are wrong, and objects are missed, in each image, (N,)."""
    matches = errors.matches
    wrong = (errors.outcome > 0) & (errors.outcome < IGNORED) & (matches.scores >= threshold)
    missed = np.maximum(errors.found, errors.reached) < threshold
    per_image = (np.bincount(of, minlength=count) for of in (matches.image[wrong], matches.true_image[missed]))
    return sum(per_image, np.zeros(count, int))


def _photo(images: Annotated, index: int) -> dict[str, Any]:
    """An image as a data URI, its longer side at most 480 pixels, and its own width and height.

    An image that cannot be read any more has the reason, `why`, instead.
    """
    height, width = images.target(index, False)["size"].tolist()
    try:
        photo = {"photo": data_uri(images.read(index), SIDE)}
    except Exception as error:  # a decoder may raise anything on a broken file
        photo = {"why": reason(error)}
    return {"width": width, "height": height, **photo}


def _true_rows(image: DetectedImage) -> list[dict[str, Any]]:
    truth = image.truth
    outlines = [None] * len(truth.boxes) if truth.masks is None else [mask_outline(mask) for mask in truth.masks]
    rows = zip(_rounded(truth.boxes), truth.labels.tolist(), truth.crowd.tolist(), outlines, strict=True)
    return [
        {"box": box, "label": label, **({"crowd": 1} if crowd else {}), **({"outline": outline} if outline else {})}
        for box, label, crowd, outline in rows
    ]


def _found_rows(image: DetectedImage, errors: DetectionErrors, rows: range) -> list[dict[str, Any]]:
    """The detections of an image that are shown, the surest first; `shows` is an index of its true objects."""
    matches, boxes, found = errors.matches, _rounded(image.found.boxes), []
    for row in rows:
        place, score = matches.place[row], int(np.floor(1000 * float(matches.scores[row]) + 1e-6))
        if score < LEAST or errors.outcome[row] == IGNORED:
            continue
        shown = {"box": boxes[place], "label": int(matches.labels[row]), "score": score}
        shown["outcome"] = int(errors.outcome[row])
        if errors.shown[row] >= 0 and errors.outcome[row] != BOTH:
            shown["shows"] = int(errors.place[errors.shown[row]])
        if image.found.masks is not None and (outline := mask_outline(image.found.masks[place])):
            shown["outline"] = outline
        found.append(shown)
    return found


def _rounded(boxes: np.ndarray) -> list[list[float]]:
    return boxes.astype(float).round(1).tolist()
