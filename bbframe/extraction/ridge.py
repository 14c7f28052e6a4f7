"""Ridge regression whose leave-one-out predictions follow from one eigendecomposition, as RidgeCV does it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky
from scipy.linalg.lapack import dtrtri

from bbframe.extraction.class_scores import checked_labels, signed_targets
from bbframe.extraction.standardised_features import StandardisedFeatures

PENALTIES = tuple(10.0 ** (step / 2) for step in range(-10, 5))  # a row: 1e-5 .. 1e2


class RidgeScores(NamedTuple):
    """Leave-one-out `predictions` (n, t), and the penalty that made them."""

    predictions: NDArray[np.float64]
    penalty: float


def ridge_leave_one_out(
    X: NDArray | StandardisedFeatures, T: NDArray, penalties: Sequence[float] | None = None
) -> RidgeScores:
    """Predict each row of the targets `T` (n, t) by the ridge regression that was fitted to all other rows.

    Features are standardised once, over all rows, and the intercept is not penalised. One penalty serves all targets:
    the one with the smallest leave-one-out squared error; of equal ones the largest. By default `penalties` are
    PENALTIES times n. The error of row i is (y_i - yhat_i) / (1 - h_ii). Raises ValueError for a penalty that is not
    positive, for fewer than two rows, and for values that are not finite.
    """
    features, T = StandardisedFeatures.of(X), np.asarray(T, np.float64)
    T = T.reshape(len(T), -1)
    if len(T) != features.rows or len(T) < 2:
        raise ValueError(f"ridge needs two rows or more and a target each, not {features.rows} rows, {len(T)} targets")
    if not np.isfinite(T).all():
        raise ValueError("ridge: the targets must be finite numbers")
    tried = np.sort(np.asarray(penalties if penalties is not None else np.multiply(PENALTIES, len(T)), np.float64))
    if not len(tried) or not (tried > 0).all():
        raise ValueError(f"ridge: penalties must be numbers above 0, not {tried.tolist()}")
    values, intercept = features.spectrum.values, T.mean(axis=0)
    moments = np.zeros((len(values), T.shape[1]))
    for rows, block in features.principal_blocks():
        moments += block.T @ (T[rows] - intercept)
    shrunk = 1.0 / (values[:, None] + tried)  # (r, penalties)
    weights = (moments[:, None, :] * shrunk[:, :, None]).reshape(len(values), len(tried) * T.shape[1])
    errors = np.zeros(len(tried))
    for rows, block in features.principal_blocks():
        left = _left_out(block, T[rows] - intercept, shrunk, weights, len(T))
        errors += (left**2).sum(axis=(0, 2))
    best = len(tried) - 1 - int(errors[::-1].argmin())
    predictions = np.empty_like(T)
    for rows, block in features.principal_blocks():
        left = _left_out(block, T[rows] - intercept, shrunk[:, [best]], moments * shrunk[:, [best]], len(T))
        predictions[rows] = T[rows] - left[:, 0]
    return RidgeScores(predictions, float(tried[best]))


def _left_out(block: NDArray, targets: NDArray, shrunk: NDArray, weights: NDArray, rows: int) -> NDArray[np.float64]:
    """The leave-one-out errors (b, penalties, t) of some rows in principal coordinates (b, r)."""
    leverage = 1.0 / rows + block**2 @ shrunk
    fitted = (block @ weights).reshape(len(block), shrunk.shape[1], targets.shape[1])
    errors = targets[:, None, :] - fitted
    errors /= np.maximum(1.0 - leverage, np.finfo(np.float64).eps)[:, :, None]
    return errors


def ridge_class_scores(X: NDArray | StandardisedFeatures, y: NDArray, K: int) -> NDArray[np.float64]:
    """Leave-one-out scores of the classes (n, K), from targets of +1 and -1, as RidgeClassifierCV takes them.

    A class without images has the score -1 in every row. Raises ValueError for fewer than two classes.
    """
    features = StandardisedFeatures.of(X)
    y = checked_labels(y, K, features.rows, "ridge")
    return ridge_leave_one_out(features, signed_targets(y, K)).predictions


def ridge_at_penalty(product: NDArray, T: NDArray, penalty: float) -> NDArray[np.float64]:
    """Leave-one-out predictions of `T` (n, t) with one penalty, from XX' (n, n) of centred features.

    A Cholesky factorisation, five times as fast as the eigenvalues that all penalties share.
    """
    matrix, rows = product.copy(), len(product)
    matrix[np.diag_indices(rows)] += penalty
    factor = cholesky(matrix, lower=True, overwrite_a=True, check_finite=False)
    solved = cho_solve((factor, True), T - T.mean(axis=0), check_finite=False)
    inverse, _ = dtrtri(factor, lower=1)
    kept = penalty * (inverse**2).sum(axis=0) - 1.0 / rows  # 1 - h_ii
    return T - penalty * solved / np.maximum(kept, np.finfo(np.float64).eps)[:, None]
