"""Predictions drawn onto the images that they belong to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from bbframe.report.box_drawing import (
    CROWD,
    Rect,
    as_array,
    class_colour,
    font_for,
    ink_on,
    letters_in,
    place_label,
    scaled,
    shared_area,
    shortened,
    tinted,
)
from bbframe.report.charts import GREY

SHARP = 320  # pixels a side: a smaller picture is enlarged until text fits onto it


def draw_detections(
    image: Image.Image, found: Mapping[str, Any], class_names: Sequence[str], threshold: float = 0.5
) -> Image.Image:
    """A copy of an image with the boxes, the classes and scores, and the masks, if any, of what was found in it.

    found: "boxes" (N, 4) in pixels, "labels" (N,), "scores" (N,) and, where there are some, "masks" (N, H, W) bool.
    What scores below `threshold` is left out. An image too small for text is enlarged, its pixels sharp.
    """
    scores, labels, boxes = (as_array(found[key]) for key in ("scores", "labels", "boxes"))
    order = [i for i in np.argsort(-scores, kind="stable") if scores[i] >= threshold]
    picture = image.convert("RGB")
    if found.get("masks") is not None and order:
        masks = [found["masks"][i] for i in order]
        picture = Image.fromarray(tinted(np.asarray(picture), masks, [int(labels[i]) for i in order]))
    factor = _enlargement(picture)
    picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    text_size, line = _measures(picture)
    pen, most = ImageDraw.Draw(picture), letters_in(picture.width, text_size)
    for i in reversed(order):  # the surest is drawn last, above the others
        pen.rectangle(_visible(scaled(boxes[i], factor), picture.size), outline=_rgb(labels[i]), width=line)
    taken: list[Rect] = []
    for i in order:
        text = f"{shortened(class_names[int(labels[i])], most)} {scores[i]:.2f}"
        font = font_for(text, text_size)
        size = (font.getlength(text) + text_size / 2, 1.3 * text_size)
        place = place_label(size, scaled(boxes[i], factor), picture.size, taken)
        if sum(shared_area(place, other) for other in taken) > CROWD * size[0] * size[1]:
            continue
        taken.append(place)
        pen.rectangle(place, fill=_rgb(labels[i]))
        middle = ((place[0] + place[2]) / 2, (place[1] + place[3]) / 2)
        pen.text(middle, text, fill=ink_on(class_colour(int(labels[i]))), font=font, anchor="mm")
    return picture


def draw_label(image: Image.Image, lines: Sequence[str]) -> Image.Image:
    """A copy of an image above a band of text lines. An image too small for text is enlarged, its pixels sharp."""
    factor = _enlargement(image)
    upper = image.convert("RGB").resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    text_size, _ = _measures(upper)
    fonts = [font_for(line, text_size) for line in lines]
    pad, step = 0.5 * text_size, 1.35 * text_size
    wide = max(font.getlength(line) for font, line in zip(fonts, lines, strict=True)) + 2 * pad
    size = (max(upper.width, math.ceil(wide)), upper.height + math.ceil(step * len(lines) + pad))
    picture = Image.new("RGB", size, "white")
    picture.paste(upper, ((size[0] - upper.width) // 2, 0))
    pen = ImageDraw.Draw(picture)
    for i, (font, line) in enumerate(zip(fonts, lines, strict=True)):
        ink = "black" if i == 0 else GREY
        pen.text((pad, upper.height + pad / 2 + step * (i + 0.5)), line, fill=ink, font=font, anchor="lm")
    return picture


def _enlargement(image: Image.Image) -> int:
    return max(1, math.ceil(SHARP / max(image.size)))


def _measures(picture: Image.Image) -> tuple[int, int]:
    """The size of text and the width of lines for a picture, in pixels."""
    side = math.sqrt(picture.width * picture.height)
    return max(13, round(side / 45)), max(2, round(side / 350))


def _rgb(label: Any) -> tuple[int, int, int]:
    red, green, blue = (round(255 * part) for part in class_colour(int(label)))
    return red, green, blue


def _visible(box: Rect, frame: tuple[int, int]) -> Rect:
    """The box inside the picture, at least a pixel wide and high."""
    left, top = (max(0.0, min(low, side - 2)) for low, side in zip(box[:2], frame, strict=True))
    right, bottom = max(left + 1, min(box[2], frame[0] - 1)), max(top + 1, min(box[3], frame[1] - 1))
    return left, top, right, bottom
