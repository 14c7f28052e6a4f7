"""Linear discriminant analysis with Ledoit and Wolf's shrinkage, leave-one-out in closed form."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular

from bbframe.extraction.class_scores import checked_labels, one_hot
from bbframe.extraction.standardised_features import StandardisedFeatures

LEAST_SHRINKAGE = 1e-6  # with less, classes of identical rows would have no covariance
LEAST_VARIANCE = 1e-10


def lda_scores(
    X: NDArray | StandardisedFeatures, y: NDArray, K: int, *, shrinkage: float | None = None
) -> NDArray[np.float64]:
    """The probability of each class (n, K) by the discriminant that was fitted to all other rows; rows sum to 1.

    The classes share one covariance, W/n of the standardised features around their class means, shrunk towards
    its mean variance times the identity. Standardisation, `shrinkage` (by default Ledoit and Wolf's) and that mean
    variance are taken once over all rows; means, W and priors are without the row. A class that has no other row
    cannot be told and has probability 0. Raises ValueError for features that are not finite and for fewer than two
    classes.
    """
    features = StandardisedFeatures.of(X)
    y = checked_labels(y, K, features.rows, "LDA")
    rows, blocks = features.rows, features.blocks
    if features.rows < features.channels:
        blocks = features.principal_blocks  # the same distances in fewer coordinates
    counts = np.bincount(y, minlength=K).astype(np.float64)
    size = next(iter(blocks()))[1].shape[1]
    means = np.zeros((K, size))
    for place, block in blocks():
        means += one_hot(y[place], K).T @ block
    means /= np.maximum(counts, 1)[:, None]
    within, fourth = np.zeros((size, size)), 0.0
    for place, block in blocks():
        residual = block - means[y[place]]
        within += residual.T @ residual
        fourth += float(((residual**2).sum(axis=1) ** 2).sum())
    variance = max(float(np.trace(within)) / (rows * features.channels), LEAST_VARIANCE)
    if shrinkage is None:
        shrinkage = ledoit_wolf(within / rows, fourth / rows, rows, features.channels)
    shrinkage = max(shrinkage, LEAST_SHRINKAGE)
    within *= 1.0 - shrinkage
    within[np.diag_indices(size)] += shrinkage * variance * (rows - 1)
    factor = cholesky(within, lower=True, check_finite=False)
    means = solve_triangular(factor, means.T, lower=True, check_finite=False).T
    scores = np.empty((rows, K))
    for place, block in blocks():
        white = solve_triangular(factor, block.T, lower=True, check_finite=False).T
        scores[place] = _left_out(white, means, counts, y[place], rows, shrinkage)
    return scores


def ledoit_wolf(covariance: NDArray, fourth: float, rows: int, channels: int) -> float:
    """The best shrinkage in 0..1 of a covariance (c, c), from the mean of its rows' lengths to the power of four.

    The covariance may be given in fewer coordinates than the `channels` of the features.
    """
    squares, trace = float((covariance**2).sum()), float(np.trace(covariance))
    distance = squares - trace**2 / channels
    return min(1.0, max(0.0, (fourth - squares) / rows / distance)) if distance > 0 else 1.0


def _left_out(
    white: NDArray, means: NDArray, counts: NDArray, y: NDArray, rows: int, shrinkage: float
) -> NDArray[np.float64]:
    """Probabilities (b, K) of whitened rows (b, r): the covariance without a row differs by one outer product."""
    mine, own = np.arange(len(y)), counts[y]
    grown = np.divide(own, own - 1, out=np.ones_like(own), where=own > 1)  # x - mean without x = grown * (x - mean)
    away = white - means[y]
    length = (away**2).sum(axis=1)
    distance = (white**2).sum(axis=1)[:, None] + (means**2).sum(axis=1) - 2 * white @ means.T
    along = (away * white).sum(axis=1)[:, None] - away @ means.T
    outer = np.where(own > 1, (1.0 - shrinkage) * grown, 0.0)
    rest = np.maximum(1.0 - outer * length, np.finfo(np.float64).eps)
    distance += (outer / rest)[:, None] * along**2
    distance[mine, y] = grown**2 * length / rest
    left = np.tile(counts, (len(y), 1))
    left[mine, y] -= 1
    with np.errstate(divide="ignore"):
        scores = np.log(left / (rows - 1)) - 0.5 * (rows - 1) * distance
    scores -= scores.max(axis=1, keepdims=True)
    np.exp(scores, out=scores)
    return scores / scores.sum(axis=1, keepdims=True)
