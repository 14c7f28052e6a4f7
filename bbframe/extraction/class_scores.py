"""What all scores of classes share: checked labels, targets, and the class that a row of scores names."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TIE = 1e-9  # scores of a row that are closer than this share of the largest are equal


def checked_labels(y: NDArray, K: int, rows: int, score: str) -> NDArray[np.int64]:
    """The classes (rows,) as int64. Raises ValueError unless all lie in 0..K-1 and two classes or more occur."""
    y = np.asarray(y)
    if y.shape != (rows,):
        raise ValueError(f"{score}: {rows} rows of features need one label each, not labels of shape {y.shape}")
    found = np.unique(y)
    if len(found) and not (found[0] >= 0 and found[-1] < K):
        raise ValueError(f"{score}: labels must lie in 0..{K - 1}, not in {found[0]}..{found[-1]}")
    if len(found) < 2:
        seen = f"all {rows} rows are of class {found[0]}" if len(found) else "there are no rows"
        raise ValueError(f"{score} needs images of two classes or more, but {seen}; take more images")
    return y.astype(np.int64, copy=False)


def one_hot(y: NDArray, K: int) -> NDArray[np.float64]:
    """Targets (n, K) of 0 and 1, as LogME takes them."""
    targets = np.zeros((len(y), K))
    targets[np.arange(len(y)), y] = 1.0
    return targets


def signed_targets(y: NDArray, K: int) -> NDArray[np.float64]:
    """Targets (n, K) of -1 and +1, as ridge classification takes them."""
    return 2.0 * one_hot(y, K) - 1.0


def top_class(scores: NDArray) -> NDArray[np.int64]:
    """The class (n,) with the largest of the scores (n, K); of equal ones the lowest number, whatever the truth is.

    Scores that differ by rounding alone are equal, so that the answer is the same on every machine.
    """
    best = scores.max(axis=1, keepdims=True)
    return (scores >= best - TIE * np.abs(best)).argmax(axis=1).astype(np.int64)


def correct_rows(scores: NDArray, y: NDArray) -> NDArray[np.float64]:
    """1 for each row (n,) whose largest score is its own class, else 0."""
    return (top_class(scores) == y).astype(np.float64)
