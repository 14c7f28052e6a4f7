"""The reliability diagram of a classifier: how often it is right, against how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from bbframe.report.chart_style import BLUE, GREY, ORANGE, chart_style, save_picture
from bbframe.tasks.calibration import BINS, calibration_error, reliability


class Confidences(NamedTuple):
    """What the probabilities of the predicted classes (N,) are called."""

    title: str
    values: np.ndarray


@chart_style()
def reliability_diagram(panels: Sequence[Confidences], right: np.ndarray, out: Path) -> None:
    """Draw a panel for each kind of confidence in the same predictions, of which `right` (N,) says which are right.

    A bar is the accuracy of the images in a bin of confidence; the thin one leads from there to their mean confidence.
    Below is the share of the images in each bin. ECE: expected calibration error.
    """
    figure = Figure(figsize=(1 + 4.2 * len(panels), 5), layout="constrained")
    rows = figure.subplots(2, len(panels), sharex=True, squeeze=False, height_ratios=[4, 1])
    figure.suptitle("Reliability: accuracy against confidence")
    for column, (title, confidences) in enumerate(panels):
        bins = reliability(confidences, right)
        _draw_accuracy(rows[0][column], bins)
        error = calibration_error(confidences, right)
        rows[0][column].set_title(f"{title}: ECE {error:.4f}")
        counts = rows[1][column]
        counts.bar(_centres(), bins[:, 0] / len(right), 0.9 / BINS, color=GREY)
        counts.set(xlabel="probability of the predicted class")
        counts.yaxis.set_major_locator(MaxNLocator(2))
        counts.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    figure.legend(*rows[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    rows[0][0].set_ylabel("accuracy")
    rows[1][0].set_ylabel("images")
    save_picture(figure, out)


def _draw_accuracy(axes: Axes, bins: np.ndarray) -> None:
    counts, confidence, accuracy = bins.T
    full = counts > 0
    place, width = _centres()[full], 0.9 / BINS
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="as sure as right")
    axes.bar(place, accuracy[full], width, color=BLUE, label="accuracy")
    gap = confidence[full] - accuracy[full]
    axes.bar(place, gap, width / 4, bottom=accuracy[full], color=ORANGE, label="from accuracy to confidence")
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(True, axis="y")
    axes.set_axisbelow(True)


def _centres() -> np.ndarray:
    return (np.arange(BINS) + 0.5) / BINS
