"""Open an image file: a regular one, of a known format, and of no more pixels than allowed."""

from __future__ import annotations

import io
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageFile

MAX_PIXELS = 178_956_970  # more than this Pillow takes for an attack: 512 MiB of colours
# a name says little about what a file holds; left out are formats that start a program, such as EPS, and rare ones
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO", "TGA")


ImageSource = str | Path | bytes  # an image file by its path, or its content


def check_regular(path: ImageSource) -> None:
    """Refuse what is no regular file: opening a FIFO would wait for ever, and a device may have no end.

    Raises ValueError, and OSError when there is nothing.
    """
    if not isinstance(path, bytes) and not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("is no regular file")


def open_source(path: ImageSource) -> BinaryIO:
    """An image file, open for reading; its content is read where it lies."""
    return io.BytesIO(path) if isinstance(path, bytes) else open(path, "rb")


@contextmanager
def open_image(path: ImageSource, max_pixels: int) -> Iterator[ImageFile.ImageFile]:
    """An image whose header is read. Pillow gets no path: it would map a turned TIFF into memory by the wrong size."""
    check_regular(path)
    with open_source(path) as file:
        yield read_header(file, max_pixels)


def read_header(file: BinaryIO, max_pixels: int) -> ImageFile.ImageFile:
    """Read the header. Our limit takes the place of Pillow's, which would also meet what is cut out of an image."""
    Image.MAX_IMAGE_PIXELS = None
    Image.init()
    with warnings.catch_warnings(record=True) as caught:  # what Pillow says of broken EXIF, it says without a path
        warnings.simplefilter("always")
        image = Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN])
        image.info["broken_exif"] = any("EXIF" in str(warning.message) for warning in caught)
    # the picture within an ICO has a header of its own
    width, height = image.ico.getimage(image.size).size if image.format == "ICO" else image.size  # type: ignore
    if width * height > max_pixels:
        image.close()
        size = f"{width}x{height}"
        raise ValueError(f"has {size} pixels, and data.max_pixels={max_pixels}; raise that if you trust the file")
    return image
