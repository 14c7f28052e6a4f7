"""The pictures of detection: test images with boxes and masks, and precision against recall.

Text and lines are sized for the reader, whether the image has 96 pixels a side or a thousand.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from torch import Tensor

from bbframe.report.box_drawing import (
    COLOURS,
    CROWD,
    Rect,
    as_array,
    class_colour,
    font_for,
    ink_on,
    letters_in,
    overlap,
    place_label,
    scaled,
    shared_area,
    shortened,
    tinted,
)
from bbframe.report.charts import BLUE, GREY, ORANGE, drawing

NAMED = 20  # up to so many classes have a curve each
CELL, GAP, LEAST = 2.6, 0.12, 6.8  # inches: an image of a grid, the gap to the next, the least width of the whole
POINTS = 7.0  # the size of the text on the images of a grid
TRUTH = "#1CC88A"  # the green of the charts, brighter: it lies on images
DASHED = (0, (3, 2))


@drawing()
def box_grid(
    images: Sequence[Tensor],
    rows: Sequence[Mapping[str, Any]],
    class_names: Sequence[str],
    out: Path,
    title: str,
    threshold: float = 0.5,
) -> None:
    """Images with their true boxes, dashed and green, and the predicted ones, in the colour of their class.

    images: (C, H, W) uint8, of any sizes. rows: for each image "truth" boxes (N, 4) and "truth_labels" (N,), the
    predicted "boxes" (M, 4), "labels" (M,), "scores" (M,) and, where the network gives them, "masks" (M, H, W) bool.
    Boxes are (x1, y1, x2, y2) in pixels. Predictions with a score below `threshold` are left out. The class of a
    true box is written where no predicted box of that class overlaps it by half (IoU).
    """
    number = len(images)
    shape = float(np.clip(np.median([image.shape[1] / image.shape[2] for image in images]), 0.5, 1.6))
    wide, high = CELL / math.sqrt(shape), CELL * math.sqrt(shape)
    ideal = min(number, max(1, round(math.sqrt(1.4 * number * shape))))
    columns = min(range(max(1, ideal - 1), ideal + 2), key=lambda count: (-number % count, abs(count - ideal), -count))
    lines = math.ceil(number / columns)
    width = max(columns * wide, LEAST)
    heading = textwrap.wrap(title, int(9 * width))
    above = 0.25 * len(heading) + 0.45
    height = above + lines * high
    figure = Figure(figsize=(width, height))
    figure.suptitle("\n".join(heading), y=1 - 0.1 / height, va="top")
    margin, sides = (width - columns * wide) / 2, (wide - GAP, high - GAP)
    for i, (image, row) in enumerate(zip(images, rows, strict=True)):
        line, column = divmod(i, columns)
        left, bottom = margin + column * wide + GAP / 2, (lines - 1 - line) * high + GAP / 2
        place = (left / width, bottom / height, sides[0] / width, sides[1] / height)
        axes = figure.add_axes(place, xticks=[], yticks=[], anchor="N")
        _draw_boxes(axes, image, row, class_names, threshold, sides)
    keys = [
        Line2D([], [], color=TRUTH, linewidth=1.5, linestyle=DASHED, label="true box, its class where it was missed"),
        Line2D([], [], color=GREY, linewidth=2, label=f"predicted box, its class and score ({threshold:g} or more)"),
    ]
    top = 1 - (0.1 + 0.25 * len(heading)) / height
    figure.legend(handles=keys, loc="upper center", bbox_to_anchor=(0.5, top), ncols=2, fontsize=9)
    figure.savefig(out)


def _draw_boxes(
    axes: Axes,
    image: Tensor,
    row: Mapping[str, Any],
    class_names: Sequence[str],
    threshold: float,
    sides: tuple[float, float],
) -> None:
    """One image in axes of the size `sides`, in inches. On paper it is measured in points."""
    channels, height, width = image.shape
    pixels = as_array(image).transpose(1, 2, 0)
    pixels = pixels if channels == 3 else pixels[..., :1].repeat(3, axis=2)
    scale = 72 * min(sides[0] / width, sides[1] / height)
    frame = (width * scale, height * scale)
    scores, labels, boxes, truth = (as_array(row[key]) for key in ("scores", "labels", "boxes", "truth"))
    order = [i for i in np.argsort(-scores, kind="stable") if scores[i] >= threshold]
    if row.get("masks") is not None:
        pixels = tinted(pixels, [row["masks"][i] for i in order], [int(labels[i]) for i in order])
    sharp = "nearest" if min(height, width) < 128 else "antialiased"
    axes.imshow(pixels, extent=(0, frame[0], frame[1], 0), interpolation=sharp)
    axes.spines[:].set(visible=True, color="#cccccc", linewidth=0.5)

    most = letters_in(frame[0], POINTS)
    notes: list[tuple[Rect, str, tuple[float, float, float], bool]] = []
    found: list[tuple[int, Rect]] = []
    for i in order:
        box, label = scaled(boxes[i], scale), int(labels[i])
        found.append((label, box))
        notes.append((box, f"{shortened(class_names[label], most)} {scores[i]:.2f}", class_colour(label), False))
        axes.add_patch(_outline(box, edgecolor=class_colour(label), linewidth=2))
    for true, name in zip(truth, as_array(row["truth_labels"]), strict=True):
        box, label = scaled(true, scale), int(name)
        if not any(label == said and overlap(box, other) >= 0.5 for said, other in found):
            notes.append((box, shortened(class_names[label], most), to_rgb(TRUTH), True))
        axes.add_patch(_outline(box, edgecolor=TRUTH, linewidth=1.4, linestyle=DASHED))

    taken: list[Rect] = []
    for box, text, colour, below in notes:
        size = (font_for(text, 10 * POINTS).getlength(text) / 10 + 2.5, 1.25 * POINTS)
        place = place_label(size, box, frame, taken, below)
        if sum(shared_area(place, other) for other in taken) > CROWD * size[0] * size[1]:
            continue
        taken.append(place)
        axes.add_patch(_outline(place, facecolor=colour, fill=True, edgecolor="none", alpha=0.85, zorder=3))
        middle = ((place[0] + place[2]) / 2, (place[1] + place[3]) / 2)
        axes.text(*middle, text, color=ink_on(colour), fontsize=POINTS, ha="center", va="center_baseline", zorder=4)
    axes.set(xlim=(0, frame[0]), ylim=(frame[1], 0))


def _outline(box: Rect, **style: Any) -> Rectangle:
    return Rectangle(box[:2], box[2] - box[0], box[3] - box[1], **{"fill": False, **style})


@drawing()
def precision_recall(
    precision: Tensor | np.ndarray,
    recall: Tensor | np.ndarray,
    thresholds: Sequence[float],
    class_names: Sequence[str],
    ap: Sequence[float],
    out: Path,
) -> None:
    """Precision against recall: the mean of all classes at several overlaps (IoU), and the curve of each class.

    precision: (T, R, K) at `thresholds` (T,) of the overlap and `recall` (R,) of the classes `class_names` (K,); -1
    where a class has no objects. ap: (K,) their average precision over all thresholds. A class's curve is the mean
    over the thresholds, so that the area below it is its average precision. Of more than 20 classes the worst and the
    best are drawn.
    """
    curves, recalls = as_array(precision).astype(float), as_array(recall)
    assert curves.shape == (len(thresholds), len(recalls), len(class_names)), curves.shape
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
                _curve(left, recalls, curves[at[overlap]].mean(1), colour, f"IoU {overlap:g}")
        _curve(left, recalls, curves.mean((0, 2)), GREY, span)
        left.legend(loc="best", title="average precision")
        names = [shortened(class_names[k]) for k in known]
        _class_curves(right, recalls, curves.mean(0), names, [float(ap[k]) for k in known])
        right.set_title(f"each class, mean of {span}")
    else:
        left.text(0.5, 0.5, "there was nothing to find", transform=left.transAxes, ha="center", color=GREY)
        right.set_axis_off()
    left.set(ylabel="precision", title=f"mean of {len(known)} class{'' if len(known) == 1 else 'es'}")
    for axes in (left, right):
        axes.set(xlabel="recall", xlim=(0, 1.01), ylim=(0, 1.02))
        axes.grid(True)
    figure.savefig(out)


def _curve(axes: Axes, recalls: np.ndarray, values: np.ndarray, colour: str, name: str) -> None:
    axes.plot(recalls, values, color=colour, linewidth=2, label=f"{values.mean():.3f}  {name}", clip_on=False)


def _class_curves(
    axes: Axes, recalls: np.ndarray, curves: np.ndarray, names: Sequence[str], ap: Sequence[float]
) -> None:
    """The curves (R, K) of classes, in the order of their average precision; of many the first and the last."""
    order = sorted(range(len(names)), key=lambda k: -ap[k])
    shown = order if len(order) <= NAMED else [*order[: NAMED // 2], *order[-NAMED // 2 :]]
    for place, k in enumerate(shown):
        if len(order) > NAMED and place == NAMED // 2:
            axes.plot([], [], " ", label=f"… {len(order) - NAMED} between")
        style = ("-", "--")[k // len(COLOURS) % 2] if len(order) <= NAMED else ("-", "--")[place >= NAMED // 2]
        colour = class_colour((k if len(order) <= NAMED else place) % len(COLOURS))
        axes.plot(recalls, curves[:, k], style, color=colour, label=f"{ap[k]:.3f}  {names[k]}", clip_on=False)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, title="average precision")
