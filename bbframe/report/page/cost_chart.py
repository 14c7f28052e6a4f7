"""A score against what it costs, with the Pareto front: the chart of the pages of sweeps and rankings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from bbframe.report.pareto_front import pareto_front

LOG_FROM = 20  # times the smallest value: an axis whose largest is above that is logarithmic


class CostedScore(NamedTuple):
    """A point of the chart: its label, cost and score; the ends of the score's interval, None without one.

    The label of one that is `named` stands beside it, where there is room; others show it where the pointer is.
    """

    label: str
    cost: float
    score: float
    ends: tuple[float, float] | None = None
    named: bool = False


def cost_chart(
    title: str, axes: tuple[str, str], points: Sequence[CostedScore], mode: str, others: str, name_front: bool = False
) -> dict[str, Any]:
    """The chart of the template `chart`, with the titles of its two `axes`; `mode` ("max", "min") says what is better.

    `others` is what the points off the front are called. `name_front` names all points on the front.
    """
    front = pareto_front([(point.cost, point.score) for point in points], mode)
    rest = [index for index in range(len(points)) if index not in set(front)]
    groups = [("on the front", front, "--orange"), (others, rest, "--blue")]
    series: list[dict[str, Any]] = []
    for word, indices, colour in groups:
        if indices:
            chosen = [points[index] for index in indices]
            one: dict[str, Any] = {"name": word, "colour": colour}
            one["points"] = [[point.cost, point.score] for point in chosen]
            one["labels"] = [point.label for point in chosen]
            one["named"] = [
                point.named or (name_front and index in front) for index, point in zip(indices, chosen, strict=True)
            ]
            if any(point.ends for point in chosen):
                one["ends"] = [point.ends for point in chosen]
            series.append(one)
    line = {"name": "Pareto front", "colour": "--orange", "line": True, "stepped": True}
    series.append({**line, "points": [[points[index].cost, points[index].score] for index in front]})
    x = {"title": axes[0], "log": is_wide([point.cost for point in points])}
    return {"title": title, "kind": "scatter", "x": x, "y": {"title": axes[1]}, "series": series}


def is_wide(values: Sequence[float]) -> bool:
    """Whether an axis of these values should be logarithmic."""
    return min(values) > 0 and max(values) > LOG_FROM * min(values)
