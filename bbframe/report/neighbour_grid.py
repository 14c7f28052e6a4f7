"""The nearest neighbours of images as a picture: a row for each image, with those that its features are most like."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from bbframe.files import visible
from bbframe.report.chart_style import GREEN, GREY, RED, save_picture
from bbframe.report.text_drawing import LINE, draw_text, fit_image, fitted, text_width, wrapped

MOST_ROWS, MOST_NEIGHBOURS = 20, 10  # of a picture
SIDE, FRAME, GAP = 150, 4, 14  # pixels: of an image, its frame, and between two
TITLE, TEXT = 20, 14  # the sizes of text, in pixels


def neighbour_grid(
    read: Callable[[int], Image.Image],
    queries: Sequence[int],
    neighbours: np.ndarray,
    similarities: np.ndarray,
    out: Path,
    *,
    labels: Sequence[int] | None = None,
    class_names: Sequence[str] = (),
    names: Sequence[str] | None = None,
    title: str = "Nearest neighbours",
) -> None:
    """Draw the images `queries` (q,), each with its `neighbours` (q, k) and their cosine `similarities` (q, k).

    `read` gives an image by its number, which stands in `queries` and `neighbours`; one that cannot be read is a
    grey tile with the reason. `labels` gives the class of every number: a neighbour is then framed green where its
    class is the query's, and red with a cross where not. `names` says what an image of `queries` is called, such as
    its file; without them it is called "image". The first 20 rows and 10 neighbours are drawn, and the
    title says so. Raises ValueError when there is nothing to draw.
    """
    if not len(queries) or not neighbours.shape[1]:
        raise ValueError("nearest neighbours: there is no image with a neighbour to draw; give two images or more")
    rows, count = min(len(queries), MOST_ROWS), min(neighbours.shape[1], MOST_NEIGHBOURS)
    cut = [f"{rows} of {len(queries)} images"] * (rows < len(queries))
    cut += [f"{count} of {neighbours.shape[1]} neighbours"] * (count < neighbours.shape[1])
    lines = 1 if labels is None else 2
    wide = SIDE + 2 * FRAME + GAP
    high = SIDE + 2 * FRAME + round(LINE * TEXT * lines) + GAP
    width = max((1 + count) * wide + 2 * GAP, 520)
    heading = wrapped(f"{title} ({', '.join(cut)})" if cut else title, TITLE, width - 2 * GAP)
    legend = "the number is the cosine similarity" + ("" if labels is None else "; ✗: another class than the image's")
    notes = wrapped(legend, TEXT, width - 2 * GAP)
    above = round(GAP + LINE * (TITLE * len(heading) + TEXT * len(notes)) + GAP)
    picture = Image.new("RGB", (width, above + rows * high), "white")
    pen = ImageDraw.Draw(picture)
    top = GAP + LINE * TITLE / 2
    for text, size in [*((line, TITLE) for line in heading), *((line, TEXT) for line in notes)]:
        draw_text(pen, (width - text_width(text, size)) / 2, top, text, size, "black" if size == TITLE else GREY)
        top += LINE * size
    for row in range(rows):
        query = int(queries[row])
        own = None if labels is None else int(labels[query])
        corner = (GAP, above + row * high)
        words = ["image" if names is None else names[query], *([] if own is None else [_name(own, class_names)])]
        _paste(picture, pen, corner, _tile(read, query, GREY), words, "black")
        for column in range(count):
            other = int(neighbours[row, column])
            words, ink = [f"{similarities[row, column]:.3f}"], GREY
            if labels is not None:
                right = int(labels[other]) == own
                ink = GREEN if right else RED
                words.append(f"{'✓' if right else '✗'} {_name(int(labels[other]), class_names)}")
            corner = (2 * GAP + (1 + column) * wide, above + row * high)
            _paste(picture, pen, corner, _tile(read, other, ink), words, ink)
    save_picture(picture, out)


def _name(label: int, class_names: Sequence[str]) -> str:
    return visible(class_names[label]) if 0 <= label < len(class_names) else f"class {label}"


def _tile(read: Callable[[int], Image.Image], index: int, ink: str) -> Image.Image:
    """An image in the middle of a square, below a frame of a colour."""
    square = Image.new("RGB", (SIDE, SIDE), "#f2f2f2")
    try:
        image = fit_image(read(index), (SIDE, SIDE))
        square.paste(image, ((SIDE - image.width) // 2, (SIDE - image.height) // 2))
    except Exception as error:  # a decoder may raise anything on a broken file
        reason = visible(" ".join(str(error).split()))[:120] or type(error).__name__
        pen = ImageDraw.Draw(square)
        for i, line in enumerate(wrapped(f"cannot be read: {reason}", TEXT, SIDE - 8)[:8]):
            draw_text(pen, 4, 16 + i * LINE * TEXT, line, TEXT, "black")
    return ImageOps.expand(square, FRAME, ink)


def _paste(
    picture: Image.Image,
    pen: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    tile: Image.Image,
    words: Sequence[str],
    ink: str,
) -> None:
    picture.paste(tile, corner)
    for i, text in enumerate(words):
        middle = corner[1] + tile.height + LINE * TEXT * (i + 0.55)
        draw_text(pen, corner[0], middle, fitted(text, TEXT, tile.width), TEXT, ink)
