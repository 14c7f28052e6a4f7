"""Leave-one-out classification by the nearest neighbours, weighted by cosine similarity (DINO's evaluation)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bbframe.extraction.class_scores import checked_labels
from bbframe.extraction.standardised_features import BLOCK, StandardisedFeatures, row_blocks

ROUNDING = 1e-11  # similarities this close are equal


def knn_scores(
    X: NDArray | StandardisedFeatures, y: NDArray, K: int, *, neighbours: int = 20, temperature: float = 0.07
) -> NDArray[np.float64]:
    """The weight of each class (n, K) among the nearest other rows; each row sums to 1.

    The features are scaled to length 1, not standardised, and a neighbour weighs exp(cos / temperature). There are as
    many neighbours as `neighbours`, but no more than images in the smallest class with two or more. Rows that are
    equally near and do not all fit in share the places that are left, so that the order of the rows changes nothing.
    Raises ValueError for features that are not finite and for fewer than two classes.
    """
    features = StandardisedFeatures.of(X)
    y = checked_labels(y, K, features.rows, "kNN")
    counts = np.bincount(y, minlength=K)
    k = min(neighbours, int(counts[counts >= 2].min(initial=features.rows)), features.rows - 1)
    scores = np.zeros((features.rows, K))
    for rows, similarity in _similarities(features):
        similarity[np.arange(len(similarity)), np.arange(rows.start, rows.stop)] = -np.inf
        last = np.partition(similarity, features.rows - k, axis=1)[:, features.rows - k]
        row, column = np.nonzero(similarity >= last[:, None] - ROUNDING)
        near = similarity[row, column]
        inside = near > last[row] + ROUNDING
        places = k - np.bincount(row[inside], minlength=len(similarity))
        tied = np.bincount(row[~inside], minlength=len(similarity))
        weight = np.exp((near - 1.0) / temperature) * np.where(inside, 1.0, (places / tied)[row])
        sums = np.bincount(row * K + y[column], weight, minlength=len(similarity) * K).reshape(-1, K)
        scores[rows] = sums / sums.sum(axis=1, keepdims=True)
    return scores


def _similarities(features: StandardisedFeatures) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """The place of each block of rows, and their cosines with all rows (b, n)."""
    length = np.zeros(features.rows)
    for rows, raw in features.raw_blocks():
        length[rows] = np.sqrt((raw**2).sum(axis=1))
    scale = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)

    def unit(rows: slice) -> NDArray[np.float64]:
        raw = np.concatenate([part[rows] for part in features.parts], axis=1, dtype=np.float64)
        return raw * scale[rows, None]

    whole = unit(slice(0, features.rows)) if features.rows * features.channels <= 2 * BLOCK else None
    for rows in row_blocks(features.rows, features.rows):
        if whole is not None:
            yield rows, whole[rows] @ whole.T
            continue
        ours = unit(rows)
        found = np.empty((len(ours), features.rows))
        for others in row_blocks(features.rows, features.channels):
            found[:, others] = ours @ unit(others).T
        yield rows, found
