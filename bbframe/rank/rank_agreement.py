"""How well an order of candidates by a score agrees with the order by what they reach after training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bbframe.extraction.class_scores import TIE


def weighted_kendall(scores: Sequence[float], truth: Sequence[float]) -> float:
    """Kendall's tau in -1..1 in which exchanges near the top weigh more (Vigna, 2015); nan if either is constant."""
    from scipy.stats import weightedtau  # a second to import

    return float(weightedtau(np.asarray(scores, np.float64), np.asarray(truth, np.float64)).statistic)


def first_choice_regret(scores: Sequence[float], truth: Sequence[float]) -> float:
    """How much less than the best the first choice reaches, in the unit of `truth`; 0 is a perfect choice.

    Candidates with the same largest score are equally likely to be chosen.
    """
    values, reached = np.asarray(scores, np.float64), np.asarray(truth, np.float64)
    first = values >= values.max() - TIE * abs(values.max())
    return float(reached.max() - reached[first].mean())


def finalists(orders: Sequence[Sequence[float]], count: int) -> list[int]:
    """The places of `count` candidates: the best by each score in turn, nobody twice; of equal ones the first."""
    queues = [list(np.argsort(-np.asarray(scores, np.float64), kind="stable")) for scores in orders]
    chosen: list[int] = []
    while len(chosen) < min(count, len(queues[0])):
        queue = queues[len(chosen) % len(queues)]
        chosen.append(int(next(place for place in queue if place not in chosen)))
    return chosen


def winner_among(chosen: Sequence[int], truth: Sequence[float]) -> bool:
    """Whether a candidate that is as good as the best is among the chosen places."""
    reached = np.asarray(truth, np.float64)
    return bool(reached[list(chosen)].max() >= reached.max())
