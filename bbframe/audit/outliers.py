"""Images that are far from all others of their class."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bbframe.extraction.cosine_neighbours import nearest_rows

NEIGHBOURS = 5
FEWEST = 10  # images of a class in which a distance can be unusual
UNUSUAL = 3.5  # modified z-score from which a value counts as an outlier (Iglewicz and Hoaglin)


class Outliers(NamedTuple):
    """For each image its distance to the nearest of its class, (n,), NaN in small classes, and how unusual that is.

    `unusual` is the modified z-score of the distance within the class, 0.6745 * (x - median) / median deviation.
    """

    distances: np.ndarray
    unusual: np.ndarray

    @property
    def scores(self) -> np.ndarray:
        """`unusual` in [0, 1): 0 for a usual distance, 0.5 where outliers begin."""
        above = np.nan_to_num(self.unusual).clip(0)
        return above / (above + UNUSUAL)


def class_outliers(features: np.ndarray, labels: np.ndarray) -> Outliers:
    """The mean cosine distance of each image, features (n, C), to the nearest `NEIGHBOURS` with its label (n,)."""
    distances, unusual = np.full(len(features), np.nan), np.zeros(len(features))
    centred = features - features.mean(0, dtype=np.float64).astype(np.float32) if len(features) else features
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < FEWEST:
            continue
        similarities, _ = nearest_rows(centred[members], None, NEIGHBOURS)
        found = 1 - similarities.mean(1, dtype=np.float64)
        middle = np.median(found)
        spread = np.median(np.abs(found - middle))
        distances[members] = found
        unusual[members] = 0.6745 * (found - middle) / max(float(spread), 1e-6)
    return Outliers(distances, unusual)
