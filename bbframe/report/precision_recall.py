"""Precision against recall: the mean of all classes, and the curve of each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bbframe.report.box_drawing import COLOURS, class_colour
from bbframe.report.chart_style import BLUE, GREY, ORANGE, chart_style, save_picture
from bbframe.report.text_drawing import shortened

NAMED = 20  # classes that have a curve each


@chart_style()
def precision_recall(
    precision: np.ndarray,
    recall: np.ndarray,
    thresholds: Sequence[float],
    class_names: Sequence[str],
    ap: Sequence[float],
    out: Path,
) -> None:
    """Draw the mean curve of all classes at several IoU thresholds, and the curve of each class.

    precision: (T, R, K) at the IoU `thresholds` (T,) and the values of `recall` (R,), for the classes `class_names`
    (K,); -1 where a class has no objects. ap: (K,), the average precision of each class over all thresholds. A class's
    curve is the mean over the thresholds, so the area below it is its average precision. More than 20 classes are
    drawn as the 10 best and the 10 worst.
    """
    curves = precision.astype(float)
    assert curves.shape == (len(thresholds), len(recall), len(class_names)), curves.shape
    known = [k for k in range(curves.shape[2]) if (curves[..., k] >= 0).any()]
    figure = Figure(figsize=(11.5, 4.8), layout="constrained")
    figure.suptitle("Precision against recall")
    left, right = figure.subplots(1, 2, sharey=True)
    if known:
        curves = np.clip(curves[..., known], 0, 1)
        at = {round(float(threshold), 3): i for i, threshold in enumerate(thresholds)}
        span = f"IoU {min(at):g} to {max(at):g}"
        for overlap, colour in ((0.5, BLUE), (0.75, ORANGE)):
            if overlap in at:
                _curve(left, recall, curves[at[overlap]].mean(1), colour, f"IoU {overlap:g}")
        _curve(left, recall, curves.mean((0, 2)), GREY, span)
        left.legend(loc="best", title="average precision")
        names = [shortened(class_names[k]) for k in known]
        _class_curves(right, recall, curves.mean(0), names, [float(ap[k]) for k in known])
        right.set_title(f"each class, mean of {span}")
    else:
        left.text(0.5, 0.5, "there was nothing to find", transform=left.transAxes, ha="center", color=GREY)
        right.set_axis_off()
    left.set(ylabel="precision", title=f"mean of {len(known)} class{'' if len(known) == 1 else 'es'}")
    for axes in (left, right):
        axes.set(xlabel="recall", xlim=(0, 1.01), ylim=(0, 1.02))
        axes.grid(True)
    save_picture(figure, out)


def _curve(axes: Axes, recall: np.ndarray, values: np.ndarray, colour: str, name: str) -> None:
    axes.plot(recall, values, color=colour, linewidth=2, label=f"{values.mean():.3f}  {name}", clip_on=False)


def _class_curves(
    axes: Axes, recall: np.ndarray, curves: np.ndarray, names: Sequence[str], ap: Sequence[float]
) -> None:
    """Draw curves (R, K) in the order of their average precision; of more than 20 the 10 best and the 10 worst."""
    order = sorted(range(len(names)), key=lambda k: -ap[k])
    shown = order if len(order) <= NAMED else [*order[: NAMED // 2], *order[-NAMED // 2 :]]
    for place, k in enumerate(shown):
        if len(order) > NAMED and place == NAMED // 2:
            axes.plot([], [], " ", label=f"… {len(order) - NAMED} between")
        style = ("-", "--")[k // len(COLOURS) % 2] if len(order) <= NAMED else ("-", "--")[place >= NAMED // 2]
        colour = class_colour((k if len(order) <= NAMED else place) % len(COLOURS))
        axes.plot(recall, curves[:, k], style, color=colour, label=f"{ap[k]:.3f}  {names[k]}", clip_on=False)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, title="average precision")
