"""The outline of a mask as polygons of few corners, to draw it in a page."""

from __future__ import annotations

import math

import numpy as np

from bbframe.tasks.mask_rle import RLE, decode_mask

FINE, CORNERS = 96, 40  # pixels that the longer side of a mask is drawn with; corners of a polygon
LARGE = 300  # pixels of a side, from which on a corner lies on a whole pixel


def mask_outline(mask: RLE) -> list[list[float]]:
    """The polygons around a mask, each [x, y, x, y, ...] in its pixels; those of holes are there too.

    A large mask is drawn at every second, third, ... pixel, and a polygon keeps 40 corners at most. In a large image
    they lie on whole pixels.
    """
    from contourpy import contour_generator

    pixels = decode_mask(mask).numpy()
    rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
    if not len(rows):
        return []
    top, left = rows[0], columns[0]
    step = math.ceil(max(rows[-1] + 1 - top, columns[-1] + 1 - left) / FINE)
    part = pixels[top : rows[-1] + 1 : step, left : columns[-1] + 1 : step]
    middle = (step - 1) / 2  # a sampled pixel stands for the middle of its neighbours
    x = left + 0.5 + middle + step * np.arange(-1, part.shape[1] + 1)
    y = top + 0.5 + middle + step * np.arange(-1, part.shape[0] + 1)
    large, found = max(pixels.shape) >= LARGE, []
    for line in contour_generator(x, y, np.pad(part.astype(float), 1)).lines(0.5):
        corners = np.asarray(line)[:-1]  # the last is the first
        kept = corners[np.linspace(0, len(corners), min(len(corners), CORNERS), endpoint=False).astype(int)]
        found.append((kept.round().astype(int) if large else kept.round(1)).ravel().tolist())
    return found
