"""The pictures of a run: which classes are confused, and the images with what was said about them."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from torch import Tensor

from bbframe.report.charts import BLUE, GREEN, RED, drawing

BLUES = LinearSegmentedColormap.from_list("blues", ["#ffffff", "#a6cee3", BLUE, "#08306b"])
TEXT_CLASSES = 30  # up to so many classes, the confusion matrix has its counts in the cells
CELLS = 250  # and at most so many cells a side


@drawing()
def confusion_matrix(matrix: Tensor, class_names: Sequence[str], out: Path) -> None:
    """How often each true class (row) was given each label (column); matrix: (K, K) counts.

    The colour is the share of the true class, on a square-root scale that shows rare mistakes. Up to 30 classes the
    counts are written in the cells; with more, a list beside it names the most confused pairs.
    """
    counts = matrix.cpu().double().numpy()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    classes, many = len(counts), len(counts) > TEXT_CLASSES
    names = [name if len(name) <= 26 else f"{name[:25]}…" for name in map(str, class_names)]
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
    figure.savefig(out)


def _write_counts(axes: Axes, counts: np.ndarray, shares: np.ndarray, names: list[str], inches: float) -> None:
    """The counts in cells of a width in inches, the names of the classes on both axes, slanted where they are long."""
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
    wrong = counts - np.diag(counts.diagonal())
    order = np.argsort(-wrong, axis=None, kind="stable")[:25]
    lines = []
    for row, column in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if wrong[row, column]:
            lines.append(f"{wrong[row, column]:.0f}  {names[row]} → {names[column]}  ({shares[row, column]:.0%})")
    axes.set_axis_off()
    axes.set_title("most confused: images, true → predicted (share of true)", loc="left", fontsize=9.5)
    axes.text(0, 1, "\n".join(lines), va="top", transform=axes.transAxes, fontsize=8.5, linespacing=1.7)


@drawing()
def image_grid(images: Tensor, captions: Sequence[str], good: Sequence[bool], out: Path, title: str) -> None:
    """Images with a caption each, framed green with a tick where `good`, and red with a cross where not.

    images: (N, C, H, W) in [0, 1]. Three channels are shown as RGB, of any other number the first.
    """
    number, channels, height, width = images.shape
    cell = min(2.6, 1.75 * math.sqrt(max(1, width / height)))  # inches, the width of an image with its margin
    ideal = min(number, max(1, round(math.sqrt(1.5 * number * (height / width + 0.25)))))
    columns = min(range(max(1, ideal - 1), ideal + 2), key=lambda count: (-number % count, abs(count - ideal)))
    marked = [f"{'✓' if ok else '✗'} {caption}" for ok, caption in zip(good, captions, strict=True)]
    texts = [textwrap.fill(caption, int(14 * cell)) for caption in marked]
    below = 0.16 * max(text.count("\n") + 1 for text in texts) + 0.15
    rows = math.ceil(number / columns)
    size = (cell * columns, rows * ((cell - 0.1) * height / width + below) + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(textwrap.fill(title, int(cell * columns * 9)))
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    pictures = images.detach().cpu().float().nan_to_num(0).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    sharp = "nearest" if min(height, width) < 64 else "antialiased"
    for axes, picture, text, ok in zip(grid, pictures, texts, good, strict=False):
        axes.imshow(picture if channels == 3 else picture[..., 0], cmap="gray", vmin=0, vmax=1, interpolation=sharp)
        axes.set(xticks=[], yticks=[])
        axes.set_xlabel(text, color=GREEN if ok else RED, fontsize=9)
        axes.spines[:].set(visible=True, color=GREEN if ok else RED, linewidth=2)
    for axes in grid[number:]:
        axes.set_axis_off()
    figure.savefig(out)
