"""What features of true boxes say about the size of the boxes: ridge R2, overall and by COCO's size buckets."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bbframe.extraction.ridge import ridge_leave_one_out
from bbframe.extraction.standardised_features import StandardisedFeatures

BUCKETS = ("small", "medium", "large")  # areas below 32^2, below 96^2, and above, in pixels
LEAST_ROWS = 10  # in a bucket, to say anything of it


class BoxScores(NamedTuple):
    """`r2` in -inf..1, and by bucket where it has LEAST_ROWS boxes; `errors` and `spread` (n,) are what it is made of.

    The squared error of each box, and its squared distance to the mean of the others: 1 - sum(errors) / sum(spread).
    """

    r2: float
    by_size: dict[str, float]
    errors: NDArray[np.float64]
    spread: NDArray[np.float64]


def size_buckets(boxes: NDArray) -> NDArray[np.int64]:
    """The place in BUCKETS (n,) of each box (n, 4), xyxy in pixels, by its area."""
    area = (boxes[:, 2] - boxes[:, 0]).astype(np.float64) * (boxes[:, 3] - boxes[:, 1])
    return np.digitize(area, (32.0**2, 96.0**2)).astype(np.int64)


def box_targets(boxes: NDArray) -> NDArray[np.float64]:
    """The logarithms of width and height (n, 2) of boxes (n, 4), xyxy in pixels. Raises ValueError for an empty box.

    A detector regresses logarithms of sides over its stride, which differ from these by a constant that the intercept
    takes up. The place of a box is no target: its features were pooled there, so that they look alike everywhere.
    """
    sides = boxes[:, 2:].astype(np.float64) - boxes[:, :2]
    if not (sides > 0).all():
        empty = int((sides <= 0).any(axis=1).argmax())
        raise ValueError(f"box {empty} is empty, {boxes[empty].tolist()} as x1, y1, x2, y2; leave such boxes out")
    return np.log(sides)


def box_scores(X: NDArray | StandardisedFeatures, boxes: NDArray) -> BoxScores:
    """Leave-one-out ridge of `box_targets` from the features (n, C) of one stage.

    Both targets count alike. The R2 of a bucket compares with the mean of that bucket, so that it is not good merely
    because small and large boxes differ; it is often below 0. Raises ValueError for fewer than three boxes and for
    boxes that all have the same size.
    """
    targets, bucket = box_targets(boxes), size_buckets(boxes)
    if len(targets) < 3:
        raise ValueError(f"box scores need three boxes or more, not {len(targets)}")
    deviation = targets.std(axis=0)
    varies = deviation > 1e-9
    if not varies.any():
        raise ValueError("box scores: all boxes have the same size, so that there is nothing to predict")
    targets = targets[:, varies] / deviation[varies]
    errors = ((targets - ridge_leave_one_out(X, targets).predictions) ** 2).sum(axis=1)
    spread = _spread(targets)
    by_size = {}
    for place, name in enumerate(BUCKETS):
        inside = bucket == place
        total = _spread(targets[inside]).sum() if inside.sum() >= LEAST_ROWS else 0.0
        if total > 0:
            by_size[name] = float(1 - errors[inside].sum() / total)
    return BoxScores(float(1 - errors.sum() / spread.sum()), by_size, errors, spread)


def _spread(targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """The squared distance (n,) of each row to the mean of the other rows."""
    rows = len(targets)
    return (((targets - targets.mean(axis=0)) * (rows / (rows - 1))) ** 2).sum(axis=1)
