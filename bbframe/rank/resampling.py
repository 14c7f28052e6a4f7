"""Bootstrap over images: how sure a score, a difference of scores, or the first place of a ranking is."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

KEPT = 2**23  # counts that are kept in memory: 64 MiB; more are drawn again each time
TIE = 1e-12


class Resampling:
    """Resamples of images, the same for all that is compared.

    `groups` (n,) is the image of each row; rows of one image, such as its boxes, are drawn together. Every interval is
    the percentile interval of 95 %. Raises ValueError without rows.
    """

    def __init__(self, groups: NDArray, resamples: int = 2000, seed: int = 0, level: float = 0.95) -> None:
        if not len(groups):
            raise ValueError("a bootstrap needs one image or more")
        images, self.image = np.unique(np.asarray(groups), return_inverse=True)
        self.image = self.image.reshape(-1)
        self.images, self.resamples, self.seed = len(images), resamples, seed
        self.ends = (50 * (1 - level), 50 * (1 + level))
        self._counts: NDArray | None = None
        if self.images * resamples <= KEPT:
            self._counts = np.concatenate(list(self._drawn()))

    def _drawn(self) -> Iterator[NDArray[np.float64]]:
        """How often each image comes up in each resample, (b, images), block by block."""
        if self._counts is not None:
            yield self._counts
            return
        random = np.random.default_rng(self.seed)
        step = max(1, KEPT // 8 // self.images)
        for start in range(0, self.resamples, step):
            counts = np.empty((min(step, self.resamples - start), self.images))
            for row in counts:
                row[:] = np.bincount(random.integers(self.images, size=self.images), minlength=self.images)
            yield counts

    def ratios(self, values: NDArray, out_of: NDArray | None = None) -> NDArray[np.float64]:
        """The sum of values over the sum of `out_of` (1 a row if left out) in each resample: (m, n) -> (m, resamples).

        A resample that holds nothing of `out_of`, such as none of a rare class, gives nan.
        """
        values = np.atleast_2d(np.asarray(values, np.float64))
        below = np.ones_like(values[:1]) if out_of is None else np.atleast_2d(np.asarray(out_of, np.float64))
        sums = np.stack([np.bincount(self.image, row, self.images) for row in (*values, *below)], axis=1)
        drawn = np.concatenate([counts @ sums for counts in self._drawn()]).T
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(drawn[len(values) :] != 0, drawn[: len(values)] / drawn[len(values) :], np.nan)

    def interval(self, values: NDArray, out_of: NDArray | None = None) -> tuple[float, float]:
        """The interval of the mean of `values` (n,), or of their sum over the sum of `out_of` (n,)."""
        low, high = np.nanpercentile(self.ratios(values, out_of)[0], self.ends)
        return float(low), float(high)

    def difference(self, one: NDArray, other: NDArray) -> tuple[float, float]:
        """The interval of the mean of `other` less the mean of `one`, paired over the rows (n,)."""
        return self.interval(np.asarray(other, np.float64) - np.asarray(one, np.float64))

    def probability_of_being_best(self, values: NDArray) -> NDArray[np.float64]:
        """In which share of the resamples each candidate has the largest mean: (candidates, n) -> (candidates,).

        Candidates that are equal in a resample share it, so that the shares sum to 1.
        """
        means = self.ratios(values)
        best = means >= means.max(axis=0) - TIE * np.abs(means).max(axis=0)
        return (best / best.sum(axis=0)).mean(axis=1)
