"""Read an image file as a person would see it: upright, 8 bits, without transparency."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

_GREY = {"1", "L", "LA"}
_TAIL = 2**16  # bytes in which the end of an image is looked for: some cameras write more behind it


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
        ImageOps.exif_transpose(image, in_place=True)  # otherwise it copies even what is upright
    upright: Image.Image = image
    if sixteen_bits:
        return Image.fromarray(((np.asarray(upright).astype(np.uint32) + 128) // 257).astype(np.uint8))
    grey = upright.mode in _GREY
    if upright.mode in ("LA", "PA", "RGBA") or "transparency" in upright.info:
        seen = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
    mode = "L" if grey else "RGB"
    return upright if upright.mode == mode else upright.convert(mode)


def glance(path: str | Path) -> tuple[int, int]:
    """Width and height of the upright image, by the first bytes of its file; the last ones tell if it is all there.

    An image is decoded only when its end is not where it should be. Raises ValueError for one that is cut off, and
    whatever the decoder raises.
    """
    with open(path, "rb") as file:
        whole = _ends(file)
        file.seek(0)
        try:
            with Image.open(file) as image:
                # a PNG without an EXIF chunk up front would be decoded in search of one
                orientation = (
                    1 if image.format == "PNG" and "exif" not in image.info else image.getexif().get(0x0112, 1)
                )
                size = image.size[::-1] if orientation in (5, 6, 7, 8) else image.size
            if not whole:
                read_image(path)
        except Exception as error:  # a decoder may raise anything on a broken file
            if whole:
                raise
            raise ValueError("is cut off") from error
    return size


def _ends(file: BinaryIO) -> bool:
    """Whether a file ends as its format says, as far as that is known."""
    head, size = file.read(12), file.seek(0, os.SEEK_END)
    if head.startswith(b"RIFF") and head.endswith(b"WEBP"):
        return size >= int.from_bytes(head[4:8], "little") + 8
    for length in (12, _TAIL):  # the few bytes are nearly always enough
        file.seek(max(0, size - length))
        tail = file.read()
        if head.startswith(b"\xff\xd8\xff"):  # JPEG; a scan that begins behind an end, a preview's, goes on
            found = tail.rfind(b"\xff\xd9") > tail.rfind(b"\xff\xda")
        elif head.startswith(b"\x89PNG"):
            found = b"IEND\xaeB`\x82" in tail
        elif head.startswith(b"GIF8"):
            found = tail.rstrip(b"\0").endswith(b";")
        else:
            return True
        if found:
            return True
    return False


def reason(error: Exception) -> str:
    """A decoder's complaint without the path, which the reader of the message has already."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return f"{error}" or type(error).__name__
