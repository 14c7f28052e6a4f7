"""Likely wrong labels: images whose nearest neighbours, themselves left out, say another class."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bbframe.features.cosine_neighbours import nearest

NEIGHBOURS = 20
TEMPERATURE = 0.07  # of the weights exp(cosine / temperature)


class LabelDoubts(NamedTuple):
    """For each image how doubtful its label is, (n,) float64 in [0, 1], and the class that the others suggest."""

    scores: np.ndarray
    suggestions: np.ndarray

    def ranking(self) -> np.ndarray:
        """The places of all images, the most doubtful first; of equal ones the first."""
        return np.argsort(-self.scores, kind="stable")


def label_doubts(features: np.ndarray, labels: np.ndarray, num_classes: int) -> LabelDoubts:
    """Leave-one-out disagreement of nearest neighbours: features (n, C), labels (n,) in 0..num_classes - 1.

    A class weighs as much as its share of the neighbours' exp(cosine / temperature), features centred. The score is
    0.5 + (weight of the strongest other class - weight of the label) / 2: 1 where all neighbours say one other class,
    0.5 on the border, 0 where all agree with the label. Copies of an image must be left out, because they repeat its
    label. Images of a class with one image are as doubtful as their neighbours are sure.
    """
    count = len(features)
    if count < 2 or num_classes < 2:
        return LabelDoubts(np.zeros(count), np.array(labels, np.int64))
    weights = neighbour_weights(features, labels, num_classes)
    rows = np.arange(count)
    own = weights[rows, labels].copy()
    weights[rows, labels] = -1
    suggestions = weights.argmax(1)
    return LabelDoubts(0.5 + (weights[rows, suggestions] - own) / 2, suggestions)


def neighbour_weights(features: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """The share of each class in an image's neighbours, the image left out: (n, num_classes) float64; rows sum to 1.

    `NEIGHBOURS` are looked at, fewer where the smallest class of several images has fewer.
    """
    sizes = np.bincount(labels, minlength=num_classes)
    several = sizes[sizes > 1]
    k = int(min(NEIGHBOURS, several.min(initial=NEIGHBOURS), len(features) - 1))
    centred = features - features.mean(0, dtype=np.float64).astype(np.float32)
    similarities, places = nearest(centred, None, k)
    # the largest similarity is taken off, which changes no share and keeps the exponential small
    strength = np.exp((similarities - similarities[:, :1]).astype(np.float64) / TEMPERATURE)
    weights = np.zeros((len(features), num_classes))
    for column in range(k):
        weights[np.arange(len(features)), labels[places[:, column]]] += strength[:, column]
    return weights / weights.sum(1, keepdims=True)
