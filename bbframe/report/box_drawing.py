"""Boxes, masks and labels drawn onto the pixels of an image."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageColor, ImageDraw

from bbframe.report.chart_style import BLUE, ORANGE, RED
from bbframe.report.text_drawing import draw_text, enlarge_for_text, fit_image, fitted, text_size, text_width

# colours of classes: none is the green of true boxes
COLOURS = (BLUE, ORANGE, "#CC79A7", RED, "#56B4E9", "#F0E442", "#8C564B", "#7B4FD0", "#E377C2", "#A6761D")
TRUTH = "#1CC88A"  # the green of the charts, brighter because it lies on images
Rect = tuple[float, float, float, float]  # left, top, right, bottom
Box = Rect | np.ndarray


@dataclass(frozen=True, kw_only=True)
class LabelledBoxes:
    """N boxes of one image: `boxes` (N, 4) as (x1, y1, x2, y2) in pixels, `labels` (N,), indices of classes."""

    boxes: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Detections(LabelledBoxes):
    """What a detector found in one image: boxes, `scores` (N,) in [0, 1] and, if it finds any, N masks (H, W)."""

    scores: np.ndarray
    masks: Sequence[np.ndarray] | None = None


NO_BOXES = LabelledBoxes(boxes=np.zeros((0, 4)), labels=np.zeros(0, int))


def draw_detections(
    image: Image.Image,
    found: Detections,
    class_names: Sequence[str],
    threshold: float = 0.5,
    truth: LabelledBoxes = NO_BOXES,
    frame: tuple[int, int] | None = None,
) -> Image.Image:
    """Draw boxes, classes, scores and masks onto a copy of an image, each object in the colour of its class.

    Detections with a score below `threshold` are left out. True boxes are dashed and green; the class of a true box is
    written if it was missed: if its IoU with every drawn box of that class is below 0.5. The picture is as large as
    fits into `frame` (width, height); without a frame, an image too small for text is enlarged.
    """
    order = [i for i in np.argsort(-found.scores, kind="stable") if found.scores[i] >= threshold]
    if found.masks is not None:
        image = _tint(image, [(found.masks[i], class_colour(found.labels[i])) for i in reversed(order)])
    picture = enlarge_for_text(image) if frame is None else fit_image(image, frame)
    scale, size = picture.width / image.width, text_size(picture)
    pen, width, taken = ImageDraw.Draw(picture), max(3, round(size / 5)), list[Rect]()
    boxes = [_visible(box * scale, picture.size, 3 * width) for box in found.boxes]
    true_boxes = [_visible(box * scale, picture.size, 3 * width) for box in truth.boxes]
    for i in reversed(order):  # the surest is drawn last, above the others
        pen.rectangle(boxes[i], outline=class_colour(found.labels[i]), width=width)
    for box in true_boxes:
        draw_dashed(pen, box, TRUTH, width - 1)
    for i in order:
        label, end = found.labels[i], f" {found.scores[i]:.2f}"
        _draw_label(picture, class_names[label], end, size, class_colour(label), boxes[i], taken)
    for label, true, box in zip(truth.labels, truth.boxes, true_boxes, strict=True):
        if not any(found.labels[i] == label and iou(found.boxes[i], true) >= 0.5 for i in order):
            _draw_label(picture, class_names[label], "", size, TRUTH, box, taken, below=True)
    return picture


def draw_dashed(pen: ImageDraw.ImageDraw, box: Rect, colour: str, width: int) -> None:
    """Draw the outline of a box in dashes, the first at its upper left corner."""
    left, top, right, bottom = box
    dash = 4 * width
    for x in np.arange(left, right, 1.7 * dash):
        for y in (top, bottom - width + 1):
            pen.rectangle((x, y, min(x + dash, right), y + width - 1), fill=colour)
    for y in np.arange(top, bottom, 1.7 * dash):
        for x in (left, right - width + 1):
            pen.rectangle((x, y, x + width - 1, min(y + dash, bottom)), fill=colour)


def class_colour(index: int) -> str:
    """The colour of a class as #RRGGBB; the first ten are far apart."""
    if index < len(COLOURS):
        return COLOURS[index]
    hue = (0.5 + 0.68 * (index * 0.618034 % 1)) % 1  # from cyan over blue and red to yellow
    return "#" + "".join(
        f"{round(255 * part):02X}" for part in colorsys.hsv_to_rgb(hue, (0.85, 0.55)[index % 2], 0.95)
    )


def iou(one: Box, other: Box) -> float:
    """The intersection of two boxes over their union, 0 where both are empty."""
    common = shared_area(one, other)
    both = sum((right - left) * (bottom - top) for left, top, right, bottom in (one, other))
    return common / (both - common) if common else 0.0


def _draw_label(
    picture: Image.Image,
    name: str,
    end: str,
    size: int,
    colour: str,
    box: Rect,
    taken: list[Rect],
    below: bool = False,
) -> None:
    """Write a label, a name that may be shortened and its end, at the first free place beside a box.

    A place is free if it overlaps none of the labels in `taken`, to which the new label is added. Without a free
    place the label is left out.
    """
    pen = ImageDraw.Draw(picture)
    text = fitted(name, size, picture.width - text_width(end, size) - size / 2) + end
    width, height = text_width(text, size) + size / 2, 1.3 * size
    left, top, right, bottom = box
    over = [(left, top - height), (right - width, top - height)]
    under = [(left, bottom), (right - width, bottom)]
    beside = [(right, top), (left - width, top), (left, top), (right - width, bottom - height)]
    for x, y in [*under, *over, *beside] if below else [*over, *under, *beside]:
        x, y = max(0.0, min(x, picture.width - width)), max(0.0, min(y, picture.height - height))
        place = (x, y, x + width, y + height)
        if not any(shared_area(place, other) for other in taken):
            taken.append(place)
            pen.rectangle(place, fill=colour)
            bright = np.dot(ImageColor.getrgb(colour), (0.299, 0.587, 0.114)) > 0.55 * 255
            draw_text(pen, x + size / 4, y + height / 2, text, size, "black" if bright else "white")
            return


def shared_area(one: Box, other: Box) -> float:
    """The area of the intersection of two boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)


def _tint(image: Image.Image, masks: Sequence[tuple[np.ndarray, str]]) -> Image.Image:
    """Lay masks (H, W) over a copy of an image, each as a veil of its colour, the last uppermost."""
    pixels = np.array(image.convert("RGB"))
    for mask, colour in masks:
        inside = np.asarray(mask, bool)
        pixels[inside] = (0.55 * pixels[inside] + 0.45 * np.array(ImageColor.getrgb(colour))).round().astype(np.uint8)
    return Image.fromarray(pixels)


def _visible(box: np.ndarray, frame: tuple[int, int], least: float) -> Rect:
    """The part of a box inside the picture, at least `least` pixels wide and high."""
    left, top, right, bottom = (float(side) for side in box)
    left, top = max(0.0, min(left, frame[0] - 1 - least)), max(0.0, min(top, frame[1] - 1 - least))
    return left, top, max(left + least, min(right, frame[0] - 1)), max(top + least, min(bottom, frame[1] - 1))
