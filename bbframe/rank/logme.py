"""LogME: the logarithm of the largest evidence of a linear model of the targets (You et al., arXiv:2102.11005)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bbframe.extraction.standardised_features import RANK, StandardisedFeatures

STEPS, TOLERANCE = 1000, 1e-6
LEAST = 1e-12  # of |y|^2: a residual below it is rounding


class LogmeScore(NamedTuple):
    """The score `value`, and what each of the rows (n,) adds to it, so that their mean is the value.

    The rows serve a bootstrap: weighted anew, they tell how the score changes with the images, to first order. At the
    maximum of the evidence it does not change with the weights and precisions of the model, which is why only the
    direct part counts: a row's log likelihood less half of its leverage (an infinitesimal jackknife).
    """

    value: float
    rows: NDArray[np.float64]


def logme(X: NDArray | StandardisedFeatures, T: NDArray) -> LogmeScore:
    """The mean over the targets `T` (n, t) of the log evidence a row; for classes T is 0 and 1.

    The model is y = Xm + noise, without an intercept and on the features as they are (not standardised), with the
    precisions of m and of the noise at the maximum of the evidence. The larger, the better the features. A target that
    is 0 in every row, such as a class without images, is left out. Raises ValueError if all are, and for values that
    are not finite.
    """
    features, T = StandardisedFeatures.of(X), np.asarray(T, np.float64)
    T = T.reshape(len(T), -1)
    if len(T) != features.rows:
        raise ValueError(f"LogME needs a target for each of the {features.rows} rows, not {len(T)}")
    if not np.isfinite(T).all():
        raise ValueError("LogME: the targets must be finite numbers")
    T = T[:, (T != 0).any(axis=0)]
    if not T.shape[1]:
        raise ValueError("LogME needs targets that are not all 0; give it images with labels")
    values, projected, axes = _projections(features, T)
    squares = (T**2).sum(axis=0)
    evidence, ratio, beta = _evidence(values[:, None], projected**2, squares, features.rows)
    kept = values[:, None] / (values[:, None] + ratio)  # of each direction, what the prior of the weights leaves
    found = np.empty(features.rows)
    for place, left in _left_vectors(features, values, axes):
        residual = T[place] - left @ (kept * projected)
        found[place] = (0.5 * np.log(beta / (2 * np.pi)) - beta / 2 * residual**2 - 0.5 * (left**2 @ kept)).mean(
            axis=1
        )
    value = float(evidence.mean())
    return LogmeScore(value, found - found.mean() + value)


def _evidence(values: NDArray, projected: NDArray, squares: NDArray, rows: int) -> tuple[NDArray, NDArray, NDArray]:
    """The largest log evidence a row of each target (t,), from squared singular values (r, 1) and (U'y)^2 (r, t).

    It is found by the fixed point of the ratio of the two precisions, alpha of the weights to beta of the noise, which
    are returned too: (evidence, alpha / beta, beta).
    """
    outside = np.maximum(squares - projected.sum(axis=0), LEAST * squares)
    ratio = np.ones_like(squares)
    open_ = np.arange(len(squares))  # targets that have not converged
    for _ in range(STEPS):
        begin = np.log(ratio[open_])
        first = _next_ratio(begin, values, projected[:, open_], outside[open_], rows)
        second = _next_ratio(first, values, projected[:, open_], outside[open_], rows)
        step, change = second - first, first - begin
        # the limit of a geometric series of steps (Aitken), at most e^3 away, where the steps shrink
        shrinks = (step * change > 0) & (np.abs(step) < np.abs(change))
        rest = np.divide(step**2, change - step, out=np.zeros_like(step), where=shrinks)
        ratio[open_] = np.exp(second + rest.clip(-3, 3))
        open_ = open_[np.abs(step) > TOLERANCE]
        if not len(open_):
            break
    weights = (values * projected / (values + ratio) ** 2).sum(axis=0)
    residual = (ratio**2 * projected / (values + ratio) ** 2).sum(axis=0) + outside
    beta = rows / (residual + ratio * weights)
    determinant = np.log1p(values / ratio).sum(axis=0)
    return 0.5 * (np.log(beta) - np.log(2 * np.pi) - 1.0 - determinant / rows), ratio, beta


def _next_ratio(ratio: NDArray, values: NDArray, projected: NDArray, outside: NDArray, rows: int) -> NDArray:
    """One step of the fixed point from the logarithm of alpha / beta (t,) to the next."""
    shrunk = np.exp(ratio) / (values + np.exp(ratio))
    gamma = (1 - shrunk).sum(axis=0)
    weights = ((1 - shrunk) ** 2 * projected / values).sum(axis=0)  # m'm
    residual = (shrunk**2 * projected).sum(axis=0) + outside
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.log(gamma * residual / (weights * np.maximum(shrunk.sum(axis=0) + rows - len(values), 0.0)))
    lowest, highest = (float(np.log(values.max(initial=1.0) * factor)) for factor in (1e-12, 1e12))
    return np.where(np.isnan(found), highest, found).clip(lowest, highest)  # nan: features that say nothing


def _projections(features: StandardisedFeatures, T: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """The squared singular values (r,) of the raw features, U'T (r, t), and U (n, r) or, for many rows, V (C, r)."""
    if features.rows < features.channels:
        gram = np.zeros((features.rows, features.rows))
        for _, columns in features.column_blocks():
            gram += columns @ columns.T
        values, vectors = np.linalg.eigh(gram)
        kept = values > RANK * values[-1]
        return values[kept], vectors[:, kept].T @ T, vectors[:, kept]
    gram, moments = np.zeros((features.channels, features.channels)), np.zeros((features.channels, T.shape[1]))
    for rows, raw in features.raw_blocks():
        gram += raw.T @ raw
        moments += raw.T @ T[rows]
    values, vectors = np.linalg.eigh(gram)
    kept = values > RANK * values[-1]
    return values[kept], (vectors[:, kept].T @ moments) / np.sqrt(values[kept])[:, None], vectors[:, kept]


def _left_vectors(
    features: StandardisedFeatures, values: NDArray, axes: NDArray
) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """The rows of U, block by block, from what `_projections` gives."""
    if features.rows < features.channels:
        yield slice(0, features.rows), axes
        return
    for rows, raw in features.raw_blocks():
        yield rows, raw @ (axes / np.sqrt(values))
