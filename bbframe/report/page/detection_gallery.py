"""The tested images of a detection run with their true and predicted objects, as a page shows them."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from bbframe.report.detection_errors import BOTH, IGNORED, OUTCOMES, DetectionErrors
from bbframe.report.page.mask_outlines import mask_outline
from bbframe.tasks.detection import DetectedImage

LEAST = 50  # thousandths: detections of a lower score are not shown
SIDE, QUALITY = 480, 82  # the longer side of a photo in pixels, and its quality as JPEG
BYTES, IMAGES = 4_500_000, 400  # of all photos and objects together; the most images


def gallery(
    rows: Sequence[DetectedImage],
    errors: DetectionErrors,
    class_names: Sequence[str],
    photo: Callable[[int], Image.Image],
    source: Callable[[int], str],
    most_bytes: int = BYTES,
) -> dict[str, Any]:
    """The data of the template `detections`: the images with the most errors, as far as `most_bytes` reach.

    `photo` and `source` give the original image and its name by its index. Scores are thousandths, rounded down, and
    coordinates pixels of the original.
    """
    starts = np.searchsorted(errors.matches.image, np.arange(len(rows) + 1))
    images: list[dict[str, Any]] = []
    size = 0
    for place in errors_per_image(errors, len(rows)).argsort(kind="stable")[::-1][:IMAGES]:
        image = rows[place]
        shown = {
            "name": source(image.image),
            **_encoded_photo(photo(image.image)),
            "truth": _true_rows(image),
            "found": _found_rows(image, errors, range(starts[place], starts[place + 1])),
        }
        size += len(json.dumps(shown))
        if size > most_bytes and images:
            break
        images.append(shown)
    return {
        "images": images,
        "tested": len(rows),
        "classes": [{"name": name} for name in class_names],
        "outcomes": [*OUTCOMES[:IGNORED], "missed"],
        "least": LEAST,
        "masks": any(image.found.masks is not None for image in rows),
    }


def errors_per_image(errors: DetectionErrors, count: int, threshold: float = 0.5) -> np.ndarray:
    """The wrong detections of a score of `threshold` or more and the missed objects of each image, counted, (images,)."""
    matches = errors.matches
    wrong = (errors.outcome > 0) & (errors.outcome < IGNORED) & (matches.scores >= threshold)
    missed = np.maximum(errors.found, errors.reached) < threshold
    per_image = (np.bincount(of, minlength=count) for of in (matches.image[wrong], matches.true_image[missed]))
    return sum(per_image, np.zeros(count, int))


def _encoded_photo(image: Image.Image) -> dict[str, Any]:
    """An image as a data URL, its longer side at most 480 pixels, and its own width and height."""
    small = image.copy()
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    written = io.BytesIO()
    small.save(written, "jpeg", quality=QUALITY)
    code = base64.b64encode(written.getvalue()).decode()
    return {"width": image.width, "height": image.height, "photo": f"data:image/jpeg;base64,{code}"}


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
