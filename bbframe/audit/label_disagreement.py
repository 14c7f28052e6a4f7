"""Likely wrong labels: images of which their neighbours, and a linear model, themselves left out, say another class.

Each sees what the other misses: neighbours find an image in the midst of another class, whatever its shape; ridge
regression finds one on the wrong side of a border that only many features together draw. Both leave one out in closed
form. Neighbours are found among whitened features, because what networks make of images is dominated by a few
directions that have little to do with the classes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bbframe.audit.whitening import Spectrum
from bbframe.features.cosine_neighbours import nearest_rows

NEIGHBOURS = 20
TEMPERATURE = 0.07  # of the weights exp(cosine / temperature)
PENALTIES = tuple(10.0**power for power in np.arange(-2, 5.5, 0.5))  # of ridge regression on standardised features


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
    if count < 3 or num_classes < 2:
        return LabelDoubts(np.zeros(count), np.array(labels, np.int64))
    spectrum = Spectrum(features)
    weights = neighbour_weights(spectrum.whitened(), labels, num_classes)
    targets = np.full((count, num_classes), -1, np.float32)
    rows = np.arange(count)
    targets[rows, labels] = 1
    weights += ((1 + spectrum.ridge_left_out(targets, PENALTIES)) / 2).clip(0, 1)
    weights /= 2
    own = weights[rows, labels].astype(np.float64)
    weights[rows, labels] = -1
    suggestions = weights.argmax(1)
    return LabelDoubts((0.5 + (weights[rows, suggestions] - own) / 2).clip(0, 1), suggestions)


def neighbour_weights(features: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """The share of each class in an image's neighbours, the image left out: (n, num_classes) float32; rows sum to 1.

    `NEIGHBOURS` are looked at, fewer where the smallest class of several images has fewer, and each counts by
    exp(cosine / temperature).
    """
    sizes = np.bincount(labels, minlength=num_classes)
    several = sizes[sizes > 1]
    k = int(min(NEIGHBOURS, several.min(initial=NEIGHBOURS), len(features) - 1))
    similarities, places = nearest_rows(features, None, k)
    # the largest similarity is taken off, which changes no share and keeps the exponential small
    strength = np.exp((similarities - similarities[:, :1]).astype(np.float64) / TEMPERATURE)
    strength /= strength.sum(1, keepdims=True)
    weights = np.zeros((len(features), num_classes), np.float32)
    for column in range(k):
        weights[np.arange(len(features)), labels[places[:, column]]] += strength[:, column].astype(np.float32)
    return weights
