"""Pictures side by side below a title: classified images with a caption each, detections with a legend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from bbframe.report.box_drawing import TRUTH, Detections, LabelledBoxes, draw_dashed, draw_detections
from bbframe.report.chart_style import GREEN, GREY, RED, save_picture
from bbframe.report.text_drawing import LINE, add_caption, draw_text, fit_image, text_size, text_width, wrapped

GAP = 14  # pixels between two pictures
TITLE, TEXT = 20, 15  # the sizes of text above the pictures, in pixels
LEAST = 880  # pixels: the least width of a grid, so that the legend fits
CLASSIFIED, DETECTED = 230, 340  # pixels: the side of a square image in a grid


def as_image(pixels: np.ndarray) -> Image.Image:
    """An array (C, H, W) of bytes as an image: three channels are RGB, of any other number the first is grey."""
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)) if len(pixels) == 3 else pixels[0])


def classified_grid(
    images: Sequence[Image.Image], captions: Sequence[str], good: Sequence[bool], out: Path, title: str
) -> None:
    """Draw images with a caption each, framed green with a tick where `good`, and red with a cross where not."""
    tiles = []
    for image, caption, right in zip(images, captions, good, strict=True):
        colour = GREEN if right else RED
        picture = ImageOps.expand(fit_image(image, _frame(images, CLASSIFIED)), 3, colour)
        lines = wrapped(f"{'✓' if right else '✗'} {caption}", size := text_size(picture), picture.width - size)
        tiles.append(add_caption(picture, lines, [colour] * len(lines)))
    save_picture(_compose(tiles, title), out)


def detection_grid(
    images: Sequence[Image.Image],
    found: Sequence[Detections],
    truth: Sequence[LabelledBoxes],
    class_names: Sequence[str],
    out: Path,
    title: str,
    threshold: float = 0.5,
) -> None:
    """Draw images of any sizes with their true and predicted boxes, as `draw_detections` does, and a legend."""
    frame = _frame(images, DETECTED)
    tiles = [
        draw_detections(image, seen, class_names, threshold, true, frame)
        for image, seen, true in zip(images, found, truth, strict=True)
    ]
    predicted = f"predicted box, its class and score ({threshold:g} or more)"
    legend = [("true box, its class where it was missed", True), (predicted, False)]
    save_picture(_compose(tiles, title, legend), out)


def _frame(images: Sequence[Image.Image], side: int) -> tuple[int, int]:
    """The (width, height) of a cell whose area is side**2 and whose shape is the images' median, within bounds."""
    shape = float(np.clip(np.median([image.height / image.width for image in images]), 0.4, 1.6))
    return round(side / math.sqrt(shape)), round(side * math.sqrt(shape))


def _compose(tiles: Sequence[Image.Image], title: str, legend: Sequence[tuple[str, bool]] = ()) -> Image.Image:
    """Put tiles into cells of one size, below a title and a legend of (text, whether its sample box is dashed).

    The whole is about 1.4 times as wide as it is high.
    """
    wide, high = (max(sides) + GAP for sides in zip(*(tile.size for tile in tiles), strict=True))
    ideal = min(len(tiles), max(1, round(math.sqrt(1.4 * len(tiles) * high / wide))))
    columns = min(
        range(max(1, ideal - 1), ideal + 2), key=lambda count: (-len(tiles) % count, abs(count - ideal), -count)
    )
    width = max(columns * wide + GAP, LEAST)
    heading = wrapped(title, TITLE, width - 2 * GAP)
    above = round(GAP + LINE * (TITLE * len(heading) + 1.3 * TEXT * bool(legend)))
    grid = Image.new("RGB", (width, above + GAP + math.ceil(len(tiles) / columns) * high), "white")
    pen = ImageDraw.Draw(grid)
    for i, line in enumerate(heading):
        draw_text(pen, (width - text_width(line, TITLE)) / 2, GAP + LINE * TITLE * (i + 0.5), line, TITLE, "black")
    sample = 4 * TEXT
    left = (width - sum(text_width(text, TEXT) + sample for text, _ in legend)) / 2
    for text, dashed in legend:
        box = (left, above - 1.3 * TEXT, left + 1.6 * TEXT, above - 0.3 * TEXT)
        if dashed:
            draw_dashed(pen, box, TRUTH, 2)
        else:
            pen.rectangle(box, outline=GREY, width=3)
        draw_text(pen, left + 2 * TEXT, above - 0.8 * TEXT, text, TEXT, "black")
        left += text_width(text, TEXT) + sample
    margin = (width - columns * wide + GAP) // 2
    for i, tile in enumerate(tiles):
        row, column = divmod(i, columns)
        grid.paste(tile, (margin + column * wide + (wide - GAP - tile.width) // 2, above + GAP + row * high))
    return grid
