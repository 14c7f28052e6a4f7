"""Histograms of how large and how wide images and boxes are."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from bbframe.data.boxes.box_sizes import box_sides
from bbframe.data.boxes.objects import Objects
from bbframe.data.data_module import DataModule

BARS = 16
ASPECTS = (0.25, 0.33, 0.5, 0.67, 0.8, 0.95, 1.05, 1.25, 1.5, 2, 3, 4)  # edges, width by height


def size_histograms(sizes: np.ndarray, data: DataModule) -> list[dict[str, Any]]:
    """Bars of image sizes (n, 2) and, in detection, of all boxes: {title, axis, bars: [[name, count], ...]}."""
    boxes = [box_sides(images) for images in data.parts.values() if isinstance(images, Objects)]
    found = [*_both("images", sizes), *(_both("boxes", np.concatenate(boxes)) if boxes else [])]
    return [chart for chart in found if len(chart["bars"]) > 1]


def _both(noun: str, sides: np.ndarray) -> list[dict[str, Any]]:
    sides = sides[(sides > 0).all(1)]
    if not len(sides):
        return []
    root = np.sqrt(sides.prod(1, dtype=np.float64))
    low, high = float(root.min()), float(root.max())
    edges = (
        np.unique(np.geomspace(low, high, BARS + 1).round(0 if low > BARS else 1)) if high > low else np.array([low])
    )
    size = {"title": f"Size of {noun}", "axis": "square root of the area, pixels", "bars": _bars(root, edges)}
    aspect = {"title": f"Aspect of {noun}", "axis": "width by height", "bars": _aspect_bars(sides)}
    return [size, aspect]


def _bars(values: np.ndarray, edges: np.ndarray) -> list[list[Any]]:
    if len(edges) < 2:
        return [[f"{edges[0]:g}", len(values)]]
    counts, _ = np.histogram(values.clip(edges[0], edges[-1]), edges)
    return [[f"{low:g}-{high:g}", int(count)] for low, high, count in zip(edges, edges[1:], counts, strict=False)]


def _aspect_bars(sides: np.ndarray) -> list[list[Any]]:
    counts = np.bincount(np.searchsorted(ASPECTS, sides[:, 0] / sides[:, 1], side="right"), minlength=len(ASPECTS) + 1)
    names = [f"below {ASPECTS[0]:g}", *(f"{a:g}-{b:g}" for a, b in pairwise(ASPECTS))]
    bars = [[name, int(count)] for name, count in zip([*names, f"from {ASPECTS[-1]:g}"], counts, strict=True)]
    there = [place for place, (_, count) in enumerate(bars) if count]
    return bars[there[0] : there[-1] + 1]
