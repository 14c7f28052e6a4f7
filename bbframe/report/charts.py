"""The charts of runs and sweeps: learning curves, and accuracy against cost."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox

from bbframe.report.box_drawing import shared_area
from bbframe.report.chart_style import BLUE, GREY, ORANGE, RED, chart_style, save_picture


def lower_is_better(metric: str) -> bool:
    """Whether a metric, such as "val/loss", is better the smaller it is."""
    return metric.endswith(("loss", "error"))


@chart_style()
def learning_curves(
    metrics_csv: Path, out: Path, metric: str = "val/accuracy", test: Mapping[str, float] | None = None
) -> None:
    """Draw loss and metric over the epochs, from a run's metrics.csv, and mark the best epoch.

    test: the final test metrics; the title gives the one that belongs to `metric`. An epoch without a finite value is
    a gap.
    """
    curves, name = _read_curves(metrics_csv), metric.removeprefix("val/")
    panels = ["loss"]
    if name != "loss" and not curves.keys().isdisjoint({f"train/{name}", f"val/{name}"}):
        panels.append(name)
    figure = Figure(figsize=(1 + 4.6 * len(panels), 4), layout="constrained")
    watched = {epoch: value for epoch, value in curves.get(metric, {}).items() if math.isfinite(value)}
    best = (min if lower_is_better(metric) else max)(watched, key=lambda epoch: watched[epoch]) if watched else None
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw_curves(axes, panel, curves)
        if best is not None:
            axes.axvline(best, color=GREY, linewidth=1, linestyle=":", zorder=0)
            if panel == name:
                _mark_best(axes, best, watched, lower_is_better(metric))
    score = (test or {}).get(name)
    figure.suptitle("Learning curves" if score is None else f"Learning curves (test {name} {score:.4f})")
    save_picture(figure, out)


def _read_curves(metrics_csv: Path) -> dict[str, dict[float, float]]:
    """The values of each column by their epoch, {column: {epoch: value}}; several rows of an epoch share it out."""
    curves: dict[str, dict[float, float]] = {}
    with open(metrics_csv, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    left = Counter(row["epoch"] for row in rows)
    counts = Counter(left)
    for row in rows:
        left[row["epoch"]] -= 1
        position = int(row["epoch"]) - left[row["epoch"]] / counts[row["epoch"]]
        for column, cell in row.items():
            if cell:
                curves.setdefault(column, {})[position] = float(cell)
    return curves


def _draw_curves(axes: Axes, panel: str, curves: dict[str, dict[float, float]]) -> None:
    drawn = []
    for part, label, colour in (("train", "training", ORANGE), ("val", "validation", BLUE)):
        points = curves.get(f"{part}/{panel}", {})
        marker = "o" if len(points) <= 40 else ""
        if points:
            axes.plot(list(points), list(points.values()), color=colour, label=label, marker=marker, markersize=4)
        drawn += [value for value in points.values() if math.isfinite(value)]
    if not drawn:
        axes.text(0.5, 0.5, "no finite values", transform=axes.transAxes, ha="center", color=GREY)
    else:
        axes.legend(loc="best")
        if min(drawn) > 0 and max(drawn) > 20 * min(drawn):
            log_scale(axes, "y")
    axes.set(xlabel="epoch", ylabel=panel)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(True, which="major")


def log_scale(axes: Axes, which: Literal["x", "y"]) -> None:
    """Make an axis logarithmic, with plain numbers at 1, 2 and 5."""
    axis = {"x": axes.xaxis, "y": axes.yaxis}[which]
    axes.set(**{f"{which}scale": "log"})
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def _mark_best(axes: Axes, best: float, watched: dict[float, float], low: bool) -> None:
    """Draw a star on the best epoch, and write its value at the end of the axis that the curve leaves free."""
    left = best - min(watched) <= (max(watched) - min(watched)) / 2
    axes.plot([best], [watched[best]], marker="*", markersize=15, color=RED, zorder=3)
    axes.annotate(
        f"best: {watched[best]:.4f} in epoch {math.ceil(best)}",
        (best, 0.96 if low else 0.04),
        xycoords=axes.get_xaxis_transform(),
        xytext=(6 if left else -6, 0),
        textcoords="offset points",
        ha="left" if left else "right",
        va="center",
        color=RED,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.8},
    )


class CostPoint(NamedTuple):
    """A configuration: GMACs of one image, mean of a metric and its interval, None without one.

    `over` says what the interval is about: "seeds", "splits", or the test "images" of one run.
    """

    label: str
    gmacs: float
    mean: float
    low: float | None
    high: float | None
    over: str

    @property
    def ends(self) -> tuple[float, float]:
        """The ends of the interval, the mean without one."""
        return (self.mean if self.low is None else self.low), (self.mean if self.high is None else self.high)


@chart_style()
def accuracy_against_gmacs(points: Sequence[CostPoint], metric: str, out: Path) -> None:
    """Draw a point for each configuration: its metric against the multiply-accumulates of one image."""
    figure = Figure(figsize=(8, 5.2), layout="constrained")
    axes = figure.subplots()
    for point in points:
        low, high = point.ends
        bar = None if point.low is None else [[max(0, point.mean - low)], [max(0, high - point.mean)]]
        axes.errorbar(point.gmacs, point.mean, bar, fmt="o", color=BLUE, ecolor=GREY, capsize=4, markersize=7)
    costs = [point.gmacs for point in points]
    if min(costs) > 0 and max(costs) > 5 * min(costs):
        log_scale(axes, "x")
    axes.margins(0.2, 0.15)
    axes.grid(True)
    over = list(dict.fromkeys(point.over for point in points if point.low is not None))
    bars = f" (bars: 95 % interval over {' or '.join(over)})" if over else ""
    axes.set(xlabel="multiply-accumulates of one image (GMACs)", ylabel=metric + bars)
    figure.suptitle(f"{metric} against the cost of the network")
    _place_labels(figure, axes, points)
    save_picture(figure, out)


def _place_labels(figure: Figure, axes: Axes, points: Sequence[CostPoint]) -> None:
    """Write each label on the side of its point where it covers least of the points and of earlier labels."""
    figure.draw_without_rendering()
    taken = []
    for point in points:
        low, high = (axes.transData.transform((point.gmacs, end)) for end in point.ends)
        taken.append(Bbox([low - 6, high + 6]))
    for point in sorted(points, key=lambda point: -point.mean):
        placed: list[tuple[float, Annotation]] = []
        for right, up in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)):
            label = axes.annotate(
                point.label,
                (point.gmacs, point.mean),
                xytext=(9 * right, 9 * up),
                textcoords="offset points",
                ha=("center", "left", "right")[right],
                va=("center", "bottom", "top")[up],
                fontsize=9,
                in_layout=False,  # the axes stay where they are
            )
            box = label.get_window_extent()
            covered = sum(shared_area(box.extents, other.extents) for other in taken)
            outside = box.width * box.height - shared_area(box.extents, axes.bbox.extents)
            placed.append((covered + outside, label))
        best = min(placed, key=lambda pair: pair[0])[1]
        for _, label in placed:
            if label is not best:
                label.remove()
        taken.append(best.get_window_extent())
