"""Likely wrong labels: images of which their neighbours, and a linear model, themselves left out, say another class.

Each sees what the other misses: neighbours find an image in the midst of another class, whatever its shape; ridge
regression finds one on the wrong side of a border that only many features together draw. Both leave one out in closed
form. Neighbours are found among whitened features, because what networks make of images is dominated by a few
directions that have little to do with the classes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bbframe.audit.whitening import Whitening
from bbframe.extraction.nearest_neighbours import knn_scores
from bbframe.extraction.ridge import ridge_class_scores


class LabelDoubts(NamedTuple):
    """For each image how doubtful its label is, (n,) float64 in [0, 1], and the class that the others suggest."""

    scores: np.ndarray
    suggestions: np.ndarray

    def ranking(self) -> np.ndarray:
        """The places of all images, the most doubtful first; of equal ones the first."""
        return np.argsort(-self.scores, kind="stable")


def label_doubts(features: np.ndarray, labels: np.ndarray, num_classes: int) -> LabelDoubts:
    """Leave-one-out disagreement: features (n, C), labels (n,) in 0..num_classes - 1.

    What a class gets is the mean of its share of the neighbours and of the ridge regression's value for it, within
    0..1. The score is 0.5 + (the strongest other class - the label) / 2: near 1 where all say one other class, 0.5 on
    the border, near 0 where all agree with the label. Copies of an image must be left out before, because they repeat
    its label.
    """
    count = len(features)
    if count < 3 or len(np.unique(labels)) < 2:
        return LabelDoubts(np.zeros(count), np.array(labels, np.int64))
    rows = np.arange(count)
    weights = knn_scores(Whitening(features).whitened(), labels, num_classes)
    weights += ((1 + ridge_class_scores(features, labels, num_classes)) / 2).clip(0, 1)
    weights /= 2
    own = weights[rows, labels].astype(np.float64)
    weights[rows, labels] = -1
    suggestions = weights.argmax(1)
    return LabelDoubts((0.5 + (weights[rows, suggestions] - own) / 2).clip(0, 1), suggestions)
