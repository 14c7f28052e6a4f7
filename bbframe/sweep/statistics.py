"""Intervals: Student's t of a mean over seeds, and the bootstrap of a mean over images; 95 % each."""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 10_000
DRAWN = 4_000_000  # counts of a multinomial in memory at a time


class Interval(NamedTuple):
    """A mean with its interval; `low` and `high` are None for one value, which says nothing of its spread."""

    mean: float
    low: float | None
    high: float | None

    @property
    def holds_zero(self) -> bool:
        """Whether 0 lies within the interval; False without one."""
        return self.low is not None and self.high is not None and self.low <= 0 <= self.high


def t_interval(values: Sequence[float]) -> Interval:
    """The mean of independent values and its Student-t interval."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Interval(mean, None, None)
    from scipy.special import stdtrit  # the quantile of Student's t

    half = float(stdtrit(len(values) - 1, 0.5 + CONFIDENCE / 2)) * statistics.stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def independent_means(values: Mapping[tuple[Hashable, Hashable], float]) -> list[float]:
    """The values whose spread an interval may rest on, from {(seed, split): value}.

    They are the means of the seeds, each over its splits, because runs that share a seed or a split are not
    independent. With one seed they are the means of the splits.
    """
    for place in (0, 1):
        means: dict[Hashable, list[float]] = {}
        for key, value in values.items():
            means.setdefault(key[place], []).append(value)
        if len(means) > 1 or place == 1:
            return [statistics.fmean(group) for group in means.values()]
    raise AssertionError


def bootstrap_interval(values: Iterable[float], seed: int = 0) -> Interval:
    """The mean of a value of each image, and the percentile bootstrap interval over images (Efron, 1979).

    Drawing n images with replacement draws how often each distinct value occurs, which is one multinomial sample.
    """
    distinct, counts = np.unique(np.fromiter(values, dtype=float), return_counts=True)
    total = int(counts.sum())
    generator = np.random.default_rng(seed)
    step = max(1, DRAWN // len(distinct))
    means = [
        generator.multinomial(total, counts / total, size=min(step, RESAMPLES - start)) @ distinct / total
        for start in range(0, RESAMPLES, step)
    ]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return Interval(float(counts @ distinct / total), float(low), float(high))
