"""Features whitened: with equal variance in all of the directions in which they vary."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

BLOCK = 4096  # rows that are in memory as float64


class Whitening:
    """The principal directions of features (n, C), centred and scaled to a variance of 1, found block by block.

    `values` (C,) are the eigenvalues of their covariance, `vectors` (C, C) the directions, `shrinkage` in [0, 1] is
    Ledoit and Wolf's: how far the covariance of so few rows must be moved towards a multiple of the identity.
    """

    def __init__(self, features: np.ndarray):
        self.features = features
        count = len(features)
        self.mean = features.mean(0, dtype=np.float64)
        variance = np.zeros(features.shape[1])
        for start in range(0, count, BLOCK):
            variance += np.square(features[start : start + BLOCK] - self.mean).sum(0)
        spread = np.sqrt(variance / count)
        self.scale = np.where(spread > 1e-6 * max(float(spread.max(initial=0)), 1e-30), spread, np.inf)
        gram, fourth = np.zeros((features.shape[1],) * 2), 0.0
        for _, rows in self._blocks():
            gram += rows.T @ rows
            fourth += float(np.square(np.square(rows).sum(1)).sum())
        self.shrinkage = _shrinkage(gram / count, fourth / count, count)
        values, self.vectors = np.linalg.eigh(gram / count)
        self.values = values.clip(0)

    def whitened(self) -> np.ndarray:
        """The features with equal variance in every direction, as far as their number allows: (n, C) float32."""
        shrunk = (1 - self.shrinkage) * self.values + self.shrinkage * self.values.mean()
        turn = self.vectors / np.sqrt(np.maximum(shrunk, 1e-9 * max(float(shrunk.max(initial=0)), 1e-30)))
        found = np.empty(self.features.shape, np.float32)
        for start, rows in self._blocks():
            found[start : start + len(rows)] = rows @ turn
        return found

    def _blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Standardised rows in float64, with the place of the first."""
        for start in range(0, len(self.features), BLOCK):
            yield start, (self.features[start : start + BLOCK] - self.mean) / self.scale


def _shrinkage(covariance: np.ndarray, fourth: float, count: int) -> float:
    """Ledoit and Wolf's, from the mean of the rows' fourth powers (of their lengths)."""
    size = len(covariance)
    level = np.trace(covariance) / size
    total = float(np.square(covariance).sum())
    distance = total - size * level**2
    noise = (fourth - total) / count
    return float(min(max(noise, 0.0), distance) / distance) if distance > 0 else 1.0
