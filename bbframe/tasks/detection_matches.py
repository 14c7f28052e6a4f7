"""Detections matched with true objects, image by image, as COCO's evaluation matches them (arXiv:1405.0312).

An image's matches do not depend on other images, so that whoever resamples images need not match again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bbframe.tasks.mask_rle import RLE

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of the intersection over union
SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e5**2)}  # areas in pixels
MOST = 100  # detections of one class that count in one image


class TrueObjects(NamedTuple):
    """The M objects of an image: `boxes` (M, 4) xyxy in its pixels, `labels`, `crowd`, `area` (M,), and masks if any.

    A detection inside of a crowd is neither right nor wrong.
    """

    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    area: np.ndarray
    masks: list[RLE] | None = None


class FoundObjects(NamedTuple):
    """The N detections in an image: `boxes` (N, 4) xyxy in its pixels, `scores`, `labels` (N,), and masks if any."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: list[RLE] | None = None


@dataclass(frozen=True, kw_only=True)
class Matches:
    """The detections of all images in one row each, image after image, the surest of an image first.

    `image`, `place` (its index among the detections of its image), `scores` and `labels` are (D,). At each of the T
    `thresholds`, `match` (T, D) is the index of its true object within the image, -1 for none; `ignored` (T, D) marks
    those that count neither as right nor as wrong. `true_image` and `true_labels` (G,) are the objects that count.
    """

    num_images: int
    num_classes: int
    thresholds: np.ndarray
    image: np.ndarray
    place: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    match: np.ndarray
    ignored: np.ndarray
    true_image: np.ndarray
    true_labels: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """Which detections count as right, (T, D) bool."""
        return (self.match >= 0) & ~self.ignored


def match_images(
    images: Iterable[tuple[FoundObjects, TrueObjects]],
    num_classes: int,
    *,
    masks: bool = False,
    areas: tuple[float, float] = (0.0, np.inf),
    most: int = MOST,
    thresholds: np.ndarray = THRESHOLDS,
) -> Matches:
    """Match the detections of each image with its objects, by their boxes or by their `masks`.

    Objects whose area lies outside of `areas` are ignored, as are detections outside of it without a match. In each
    image the `most` surest detections of a class count.
    """
    columns: list[tuple[np.ndarray, ...]] = []
    objects: list[tuple[np.ndarray, np.ndarray]] = []
    for number, (found, truth) in enumerate(images):
        chosen = surest(found, most)
        ignored_truth = truth.crowd | (truth.area < areas[0]) | (truth.area > areas[1])
        overlap = overlaps(found, truth, masks)[chosen]
        own = np.where(found.labels[chosen, None] == truth.labels, overlap, 0.0)
        match = _match(own, truth.crowd, ignored_truth, thresholds)
        ignored = np.append(ignored_truth, False)[match]  # the last one belongs to -1, no match
        if np.isfinite(areas[1]):
            area = found_areas(found, masks)[chosen]
            ignored |= (match < 0) & ((area < areas[0]) | (area > areas[1]))
        row = np.full(len(chosen), number), chosen, found.scores[chosen], found.labels[chosen]
        columns.append((*row, match.T, ignored.T))
        counted = truth.labels[~ignored_truth]
        objects.append((np.full(len(counted), number), counted))
    kinds = int, int, float, int, int, bool
    empty: list[np.ndarray] = [np.zeros((0, len(thresholds)) if i > 3 else 0, kind) for i, kind in enumerate(kinds)]
    image, place, scores, labels, match, ignored = (
        np.concatenate(parts) for parts in zip(empty, *columns, strict=True)
    )
    true_image, true_labels = (np.concatenate(parts) for parts in zip([empty[0]] * 2, *objects, strict=True))
    return Matches(
        num_images=len(columns),
        num_classes=num_classes,
        thresholds=thresholds,
        image=image,
        place=place,
        scores=scores,
        labels=labels,
        match=match.T,
        ignored=ignored.T,
        true_image=true_image,
        true_labels=true_labels,
    )


def surest(found: FoundObjects, most: int) -> np.ndarray:
    """The indices of the `most` surest detections of each class, the surest first."""
    order = np.argsort(-found.scores, kind="stable")
    if len(order) <= most:
        return order
    labels = found.labels[order]
    kept = np.zeros(len(order), bool)
    for label in np.unique(labels):
        kept[np.flatnonzero(labels == label)[:most]] = True
    return order[kept]


def overlaps(found: FoundObjects, truth: TrueObjects, masks: bool) -> np.ndarray:
    """The intersection over union of each detection and each object, (N, M); of a crowd, over the detection alone."""
    if not len(found.boxes) or not len(truth.boxes):
        return np.zeros((len(found.boxes), len(truth.boxes)))
    if masks:
        from faster_coco_eval.core.mask import iou

        shape = len(found.boxes), len(truth.boxes)
        crowd = truth.crowd.astype(np.uint8).tolist()
        return np.asarray(iou(_packed(found.masks), _packed(truth.masks), crowd)).reshape(shape)
    one, other = found.boxes.astype(float)[:, None], truth.boxes.astype(float)[None]
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    common = np.maximum(sides, 0).prod(-1)
    area, true_area = (np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1) for boxes in (one, other))
    union = np.where(truth.crowd, area, area + true_area - common)
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def found_areas(found: FoundObjects, masks: bool) -> np.ndarray:
    """The areas of detections in pixels, (N,)."""
    if masks and len(found.boxes):
        from faster_coco_eval.core.mask import area

        return np.asarray(area(_packed(found.masks)), float)
    boxes = found.boxes.astype(float)
    return (boxes[:, 2:] - boxes[:, :2]).prod(1)


def _packed(masks: list[RLE] | None) -> list[RLE]:
    """Run lengths as COCO's functions take them."""
    assert masks is not None
    return [{**mask, "counts": mask["counts"].encode()} for mask in masks]


def _match(own: np.ndarray, crowd: np.ndarray, ignored: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """The index of each detection's object at each threshold, (T, N), -1 for none.

    `own` (N, M) are the overlaps with objects of the detection's class, 0 for others. From the surest detection on,
    each takes the free object that it overlaps most, one that counts before one that is `ignored`. A crowd stays free.
    """
    match = np.full((len(thresholds), len(own)), -1)
    if not own.size:
        return match
    least = np.minimum(thresholds, 1 - 1e-10)[:, None]
    taken = np.zeros((len(thresholds), own.shape[1]), bool)
    first = np.where(ignored, 0.0, 2.0)  # more than any overlap
    for number in np.flatnonzero(own.max(1) >= least[0]):
        free = (own[number] >= least) & ~taken
        rank = np.where(free, own[number] + first, -1.0)
        best = rank.shape[1] - 1 - rank[:, ::-1].argmax(1)  # the last of equal ones, as COCO takes it
        rows = np.flatnonzero(free.any(1))
        match[rows, number] = best[rows]
        taken[rows, best[rows]] = ~crowd[best[rows]]
    return match
