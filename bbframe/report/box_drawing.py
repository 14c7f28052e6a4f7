"""Labels on images: colours of classes, letters of any script, and a place where a label hides least."""

from __future__ import annotations

import colorsys
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.font_manager import FontProperties, findfont, get_font_names
from matplotlib.ft2font import FT2Font
from PIL import ImageFont
from torch import Tensor

from bbframe.report.charts import BLUE, FONTS, ORANGE, RED

# colours of classes: none is the green of true boxes
COLOURS = (BLUE, ORANGE, "#CC79A7", RED, "#56B4E9", "#F0E442", "#8C564B", "#7B4FD0", "#E377C2", "#A6761D")
CROWD = 0.15  # a label of which more would be hidden, or hide others, is left out: the colour must do
Rect = tuple[float, float, float, float]  # left, top, right, bottom


def class_colour(index: int) -> tuple[float, float, float]:
    """The colour of a class, red, green and blue in [0, 1]; the first ten are far apart."""
    if index < len(COLOURS):
        return to_rgb(COLOURS[index])
    hue = (0.5 + 0.68 * (index * 0.618034 % 1)) % 1  # from cyan over blue and red to yellow
    return colorsys.hsv_to_rgb(hue, (0.85, 0.55)[index % 2], 0.95)


def ink_on(colour: tuple[float, float, float]) -> str:
    """Black or white, whichever is read better on a colour."""
    return "black" if np.dot(colour, (0.299, 0.587, 0.114)) > 0.55 else "white"


def place_label(
    size: tuple[float, float], box: Rect, frame: tuple[float, float], taken: Sequence[Rect], below: bool = False
) -> Rect:
    """Where to write a label (width, height) of a box, inside a frame (width, height), y pointing down.

    It is the first of several places at the box that covers least of those taken.
    """
    width, height = size
    left, top, right, bottom = box
    over = [(left, top - height), (right - width, top - height)]
    under = [(left, bottom), (right - width, bottom)]
    beside = [(right, top), (left - width, top), (left, top), (right - width, bottom - height)]
    found = []
    for x, y in [*under, *over, *beside] if below else [*over, *under, *beside]:
        x, y = max(0.0, min(x, frame[0] - width)), max(0.0, min(y, frame[1] - height))
        found.append((x, y, x + width, y + height))
    return min(found, key=lambda place: sum(shared_area(place, other) for other in taken))


def shared_area(one: Rect, other: Rect) -> float:
    """The area that two rectangles share."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)


def overlap(one: Rect, other: Rect) -> float:
    """The shared part of two rectangles' area, from 0 to 1."""
    common = shared_area(one, other)
    both = sum((right - left) * (bottom - top) for left, top, right, bottom in (one, other))
    return common / (both - common) if common else 0.0


def shortened(text: str, most: int = 24) -> str:
    """A name of at most so many letters; what is cut off becomes three dots."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def letters_in(width: float, size: float) -> int:
    """How long the name of a class may be, in letters of a size, to be written with its score on an image."""
    return int(np.clip(width / (0.65 * size) - 6, 3, 24))


def font_for(text: str, size: float) -> ImageFont.FreeTypeFont:
    """The first of our fonts that has all letters of a text, else the very first."""
    files = _font_files()
    able = (file for file, letters in files.items() if letters.issuperset(map(ord, text)))
    return _sized(next(able, next(iter(files))), size)


@functools.cache
def _font_files() -> dict[str, frozenset[int]]:
    """The letters of each font that is installed."""
    files = [findfont(FontProperties(family=name)) for name in FONTS if name in get_font_names()]
    return {file: frozenset(FT2Font(file).get_charmap()) for file in files}


@functools.cache
def _sized(file: str, size: float) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, size)


def as_array(values: Any) -> np.ndarray:
    """A tensor, a list or an array as an array."""
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def tinted(pixels: np.ndarray, masks: Sequence[np.ndarray], labels: Sequence[int]) -> np.ndarray:
    """An image (H, W, 3) of bytes with masks (H, W) as a veil in the colours of their classes, the first uppermost."""
    pixels = pixels.copy()
    for mask, label in reversed([*zip(masks, labels, strict=True)]):
        inside = as_array(mask).astype(bool)
        pixels[inside] = (0.55 * pixels[inside] + 0.45 * 255 * np.array(class_colour(label))).round().astype(np.uint8)
    return pixels


def scaled(box: Sequence[float], scale: float) -> Rect:
    """The box with all sides times `scale`."""
    left, top, right, bottom = (float(side) * scale for side in box)
    return left, top, right, bottom
