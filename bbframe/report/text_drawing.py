"""Text on images: enlarging small images, fitting text to a width, and drawing letters of any script."""

from __future__ import annotations

import functools
import itertools
import math
import textwrap
from collections.abc import Sequence

from matplotlib.font_manager import FontProperties, findfont, get_font_names
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

from bbframe.files import visible
from bbframe.report.chart_style import FONTS

LEGIBLE = 320  # pixels: an image whose longer side is shorter is enlarged before text is drawn on it
LINE = 1.35  # the height of a line of text, as a multiple of the text size


def enlarge_for_text(image: Image.Image) -> Image.Image:
    """Copy an image as RGB, enlarged by a whole factor until its longer side has at least 320 pixels."""
    factor = max(1, math.ceil(LEGIBLE / max(image.size)))
    return image.convert("RGB").resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def fit_image(image: Image.Image, frame: tuple[int, int]) -> Image.Image:
    """Copy an image as RGB, as large as fits into (width, height); the pixels of a small image stay sharp."""
    scale = min(frame[0] / image.width, frame[1] / image.height)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    kind = Image.Resampling.NEAREST if min(image.size) < 128 else Image.Resampling.LANCZOS
    return image.convert("RGB").resize(size, kind)


def text_size(picture: Image.Image) -> int:
    """The font size for a picture, in pixels: 13, or more in a large picture."""
    return max(13, round(math.sqrt(picture.width * picture.height) / 45))


def text_width(text: str, size: float) -> float:
    """The width of a text in pixels."""
    return sum(font.getlength(part) for font, part in _runs(text, size))


def draw_text(pen: ImageDraw.ImageDraw, left: float, middle: float, text: str, size: float, ink: str) -> None:
    """Draw a line of text from x = `left`, with the middle of its capital letters at y = `middle`."""
    for font, part in _runs(text, size):
        pen.text((left, middle + 0.365 * size), part, fill=ink, font=font, anchor="ls")
        left += font.getlength(part)


def shortened(text: str, limit: int = 24) -> str:
    """Cut a text to `limit` letters; the last letter of a text that was cut is an ellipsis."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def fitted(text: str, size: float, width: float) -> str:
    """Cut a text to `width` pixels and to 24 letters, but to no fewer than 3."""
    limits = range(min(len(text), 24), 2, -1)
    return next((short for n in limits if text_width(short := shortened(text, n), size) <= width), shortened(text, 3))


def wrapped(text: str, size: float, width: float) -> list[str]:
    """Break a text into lines, each at most about `width` pixels long."""
    return textwrap.wrap(text, max(1, int(width / (0.62 * size))))


def add_caption(picture: Image.Image, lines: Sequence[str], inks: Sequence[str]) -> Image.Image:
    """Add a white band with lines of text below a copy of a picture, which is widened if a line needs it."""
    size = text_size(picture)
    pad, step = 0.5 * size, LINE * size
    width = max(picture.width, math.ceil(max(text_width(line, size) for line in lines) + 2 * pad))
    above = Image.new("RGB", (width, picture.height + math.ceil(step * len(lines) + pad)), "white")
    above.paste(picture, ((width - picture.width) // 2, 0))
    pen = ImageDraw.Draw(above)
    for i, (line, ink) in enumerate(zip(lines, inks, strict=True)):
        draw_text(pen, pad, picture.height + pad / 2 + step * (i + 0.5), line, size, ink)
    return above


def _runs(text: str, size: float) -> list[tuple[ImageFont.FreeTypeFont, str]]:
    """Split a text into parts of one font each."""
    letters_by_font = itertools.groupby(visible(text), _font_file)
    return [(_sized(file, size), "".join(letters)) for file, letters in letters_by_font]


@functools.cache
def _font_file(letter: str) -> str:
    """The first font file that has a letter; without one, the first file, which draws an empty box."""
    files = _letters_by_file()
    return next((file for file, letters in files.items() if ord(letter) in letters), next(iter(files)))


@functools.cache
def _letters_by_file() -> dict[str, frozenset[int]]:
    """The code points of each installed font."""
    files = [findfont(FontProperties(family=name)) for name in FONTS if name in get_font_names()]
    return {file: frozenset(FT2Font(file).get_charmap()) for file in files}


@functools.cache
def _sized(file: str, size: float) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, size)
