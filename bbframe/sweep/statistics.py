"""Student's t interval of a mean over seeds or splits, 95 %."""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

CONFIDENCE = 0.95


class MeanInterval(NamedTuple):
    """A mean with its interval; `low` and `high` are None for one value, which says nothing of its spread."""

    mean: float
    low: float | None
    high: float | None

    @property
    def holds_zero(self) -> bool:
        """Whether 0 lies within the interval; False without one."""
        return self.low is not None and self.high is not None and self.low <= 0 <= self.high


def t_interval(values: Sequence[float]) -> MeanInterval:
    """The mean of independent values and its Student-t interval."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return MeanInterval(mean, None, None)
    from scipy.special import stdtrit  # the quantile of Student's t

    half = float(stdtrit(len(values) - 1, 0.5 + CONFIDENCE / 2)) * statistics.stdev(values) / math.sqrt(len(values))
    return MeanInterval(mean, mean - half, mean + half)


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
