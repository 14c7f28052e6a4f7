"""COCO's average precision from matched detections, and how it varies when images are drawn again."""

from __future__ import annotations

import numpy as np

from bbframe.tasks.detection_matches import Matches

RECALLS = np.linspace(0, 1, 101)
RESAMPLES, FEWEST = 1000, 200  # of the images
WORK = 10**8  # numbers that resampling may go through: half a second to two
MEMORY = 2 * 10**7  # numbers that one step of it may hold


def average_precision(matches: Matches, weights: np.ndarray | None = None) -> np.ndarray:
    """The average precision of each class at each threshold, (T, K), NaN for a class without objects.

    It is the mean precision at 101 values of the recall, where the precision at a recall is the best one at this or a
    higher recall. With `weights` (B, images), how often each image counts in each of B resamples, it is (B, T, K).
    """
    counts = np.ones((1, matches.num_images)) if weights is None else weights
    found = np.full((len(counts), len(matches.thresholds), matches.num_classes), np.nan)
    weight = np.ascontiguousarray(counts.T, dtype=np.float64)  # (images, B): a detection's counts lie in one row
    right = matches.right
    for label in np.unique(matches.true_labels):
        rows = np.flatnonzero(matches.labels == label)
        rows = rows[np.argsort(-matches.scores[rows], kind="stable")]
        ever = np.flatnonzero(right[:, rows].any(0))
        rows = rows[: ever[-1] + 1] if len(ever) else rows[:0]  # what comes after the last right one costs nothing
        objects = counts @ np.bincount(matches.true_image[matches.true_labels == label], minlength=weight.shape[0])
        each = weight[matches.image[rows]]
        before = each.cumsum(0)
        for level in range(len(matches.thresholds)):
            hits, skipped = np.flatnonzero(right[level, rows]), matches.ignored[level, rows]
            counted = before if not skipped.any() else (each * ~skipped[:, None]).cumsum(0)
            found[:, level, label] = _area(each[hits].cumsum(0), counted[hits], objects)
    return found[0] if weights is None else found


def _area(hits: np.ndarray, counted: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """The mean of B curves' precision at 101 recalls: (hits, B) right ones and all ones so far, (B,) true objects."""
    precision = hits / np.maximum(counted, 1)
    best = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    recall = hits / np.maximum(objects, 1)
    below = (100 * recall + 1e-9).astype(np.int64)
    reached = below + (RECALLS[below] <= recall)  # as many recalls are at most this one; faster than a search
    new = np.diff(reached, axis=0, prepend=0)
    return np.where(objects > 0, (best * new).sum(0) / len(RECALLS), np.nan)


def resampled_means(matches: Matches, seed: int = 0) -> dict[str, np.ndarray]:
    """The mean average precision {"mAP", "mAP50"} of each of B bootstrap samples of the images, (B,).

    B is 1,000, or fewer where that would take more than a second or two, but at least 200. Two runs with the same
    numbers of images and of samples have the same samples, so that their differences are paired. A sample without any
    object gives NaN.
    """
    work = matches.scores.size + 8 * int(matches.right.sum())
    resamples = max(FEWEST, min(RESAMPLES, WORK // max(work, 1)))
    share = np.full(matches.num_images, 1 / matches.num_images)
    weights = np.random.default_rng(seed).multinomial(matches.num_images, share, resamples)
    found: dict[str, list[np.ndarray]] = {"mAP": [], "mAP50": []}
    most = np.bincount(matches.labels, minlength=1).max()  # detections of one class
    step = max(1, MEMORY // max(most, 1))
    for start in range(0, resamples, step):
        precision = average_precision(matches, weights[start : start + step])
        present = ~np.isnan(precision[:, 0])  # classes that have objects in a sample
        total, classes = np.nansum(precision, axis=2), np.maximum(present.sum(1), 1)
        mean = np.where(present.any(1)[:, None], total / classes[:, None], np.nan)
        found["mAP"].append(mean.mean(1))
        found["mAP50"].append(mean[:, 0])
    return {name: np.concatenate(parts) for name, parts in found.items()}


def precision_intervals(matches: Matches) -> dict[str, tuple[float, float]]:
    """The 95 % intervals of mAP and mAP50 over bootstrap samples of the images; none without objects.

    The mean of samples lies above the measured value, because the best precision at a recall or above grows with the
    noise of a curve. The percentiles are therefore moved so that this mean becomes the measured value. Over 150 made
    tests of 60 images, such an interval held the expected mAP in 95 % of them, percentiles alone in 88 %.
    """
    if not matches.true_labels.size:
        return {}
    measured = np.nanmean(average_precision(matches), axis=1)
    found = {}
    for (name, values), value in zip(resampled_means(matches).items(), (measured.mean(), measured[0]), strict=True):
        moved = np.nanpercentile(values, (2.5, 97.5)) - np.nanmean(values) + value
        low, high = moved.clip(0, 1).tolist()
        found[name] = (low, high)
    return found


def precision_curve(matches: Matches, label: int, level: int = 0) -> np.ndarray:
    """The precision (101,) of a class at `RECALLS`, at the threshold of index `level`; 0 beyond its last recall.

    Precision is the best one at this recall or above, as in the average. Raises AssertionError without objects.
    """
    objects = int((matches.true_labels == label).sum())
    assert objects, label
    rows = np.flatnonzero((matches.labels == label) & ~matches.ignored[level])
    rows = rows[np.argsort(-matches.scores[rows], kind="stable")]
    hits = np.flatnonzero(matches.right[level, rows])
    best = np.maximum.accumulate((np.arange(1, len(hits) + 1) / (hits + 1))[::-1])[::-1]
    place = np.searchsorted(np.arange(1, len(hits) + 1) / objects, RECALLS)
    return np.append(best, 0.0)[place]
