"""The Pareto front of cost and score, which tables, pages and pictures share."""

from __future__ import annotations

import math
from collections.abc import Sequence


def pareto_front(points: Sequence[tuple[float, float]], mode: str) -> list[int]:
    """The indices of the points (cost, metric) than which none is cheaper and as good, by rising cost."""
    sign = 1 if mode == "max" else -1
    front: list[int] = []
    best = -math.inf
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -sign * points[i][1])):
        if sign * points[index][1] > best:
            best = sign * points[index][1]
            front.append(index)
    return front
