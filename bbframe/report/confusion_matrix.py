"""The confusion matrix of a classifier."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from bbframe.report.chart_style import BLUE, chart_style, save_picture
from bbframe.report.text_drawing import shortened

BLUES = LinearSegmentedColormap.from_list("blues", ["#ffffff", "#a6cee3", BLUE, "#08306b"])
TEXT_CLASSES = 30  # a matrix of more classes has no counts in its cells
CELLS = 250  # a matrix of more classes has cells that hold several classes


@chart_style()
def confusion_matrix(counts: np.ndarray, class_names: Sequence[str], out: Path) -> None:
    """Draw how often each true class (row) was predicted as each class (column); counts: (K, K).

    The colour is the share of the true class, on a square-root scale that shows rare mistakes. Up to 30 classes, the
    counts are written in the cells; with more, a list beside the matrix names the most confused pairs.
    """
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    classes, many = len(counts), len(counts) > TEXT_CLASSES
    names = [shortened(name, 26) for name in class_names]
    side = float(np.clip(2 + 0.42 * classes, 5, 8.5))
    size = (side + 5, 0.88 * side) if many else (side + 1, side)
    figure = Figure(figsize=size, layout="compressed")
    axes = figure.subplots(1, 2, width_ratios=[side, 4.4])[0] if many else figure.subplots()
    step = math.ceil(classes / CELLS)
    padding = -classes % step
    blocks = np.pad(shares, (0, padding)).reshape((classes + padding) // step, step, -1, step).max((1, 3))
    edge = classes + padding - 0.5
    shown = axes.imshow(blocks, cmap=BLUES, norm=PowerNorm(0.5, 0, 1), extent=(-0.5, edge, edge, -0.5))
    figure.colorbar(shown, ax=axes, label="share of the true class", format=PercentFormatter(1), shrink=0.8)
    accuracy = counts.trace() / max(counts.sum(), 1)
    figure.suptitle(f"Confusion: {accuracy:.2%} of {counts.sum():,.0f} images right")
    axes.set(xlabel="predicted class", ylabel="true class")
    if step > 1:
        axes.set_xlabel(f"predicted class (a cell is the largest of {step} x {step})")
    if many:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        _list_mistakes(figure.axes[1], counts, shares, names)
    else:
        _write_counts(axes, counts, shares, names, (side - 2) / classes)
    save_picture(figure, out)


def _write_counts(axes: Axes, counts: np.ndarray, shares: np.ndarray, names: list[str], inches: float) -> None:
    """Write the counts into cells of a width in inches, and the class names on both axes, slanted where too long."""
    slant = 45 if max(map(len, names)) * 0.1 > inches else 0
    side = "right" if slant else "center"
    axes.set_xticks(range(len(names)), names, rotation=slant, ha=side, rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0)
    size = min(12.0, 90 * inches / max(2, len(f"{counts.max():.0f}")))
    for row, column in zip(*counts.nonzero(), strict=True):
        colour = "white" if shares[row, column] > 0.25 else "black"
        axes.text(column, row, f"{counts[row, column]:.0f}", ha="center", va="center", color=colour, fontsize=size)


def _list_mistakes(axes: Axes, counts: np.ndarray, shares: np.ndarray, names: list[str]) -> None:
    """List the 25 most frequent confusions."""
    wrong = counts - np.diag(counts.diagonal())
    order = np.argsort(-wrong, axis=None, kind="stable")[:25]
    lines = []
    for row, column in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if wrong[row, column]:
            lines.append(f"{wrong[row, column]:.0f}  {names[row]} → {names[column]}  ({shares[row, column]:.0%})")
    axes.set_axis_off()
    axes.set_title("most confused: images, true → predicted (share of true)", loc="left", fontsize=9.5)
    axes.text(0, 1, "\n".join(lines), va="top", transform=axes.transAxes, fontsize=8.5, linespacing=1.7)
