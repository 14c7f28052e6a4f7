"""Read an image file as a person would see it: upright, 8 bits, without transparency."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

_GREY = {"1", "L", "LA"}


def read_image(path: str | Path) -> Image.Image:
    """The image in mode L (no colours in the file's mode) or RGB.

    Its EXIF orientation is applied, transparency lies on white as in a viewer, and 16-bit grey is scaled, not
    clipped. Raises OSError or ValueError, or whatever the decoder raises, when the file cannot be read.
    """
    with Image.open(path) as image:
        sixteen_bits = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
        if image.mode in ("I", "F") and not sixteen_bits:
            raise ValueError(f"32-bit pixels (mode {image.mode}) have no known range; save it with 8 or 16 bits")
        image.load()
        upright = ImageOps.exif_transpose(image)
    if sixteen_bits:
        return Image.fromarray(((np.asarray(upright).astype(np.uint32) + 128) // 257).astype(np.uint8))
    grey = upright.mode in _GREY
    if upright.mode in ("LA", "PA", "RGBA") or "transparency" in upright.info:
        seen = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
    mode = "L" if grey else "RGB"
    return upright if upright.mode == mode else upright.convert(mode)


def broken_header(path: str | Path) -> str | None:
    """Why the file is no image, judged by its first bytes; None when it looks like one."""
    try:
        with Image.open(path):
            return None
    except Exception as error:  # a decoder may raise anything on a broken file
        return reason(error)


def header_size(path: str | Path) -> tuple[int, int]:
    """Width and height of the upright image, judged by its first bytes. Raises whatever the decoder raises."""
    with Image.open(path) as image:
        # a PNG without an EXIF chunk up front would be decoded in search of one
        orientation = 1 if image.format == "PNG" and "exif" not in image.info else image.getexif().get(0x0112, 1)
        return image.size[::-1] if orientation in (5, 6, 7, 8) else image.size


def reason(error: Exception) -> str:
    """A decoder's complaint without the path, which the reader of the message has already."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return f"{error}" or type(error).__name__
