"""Photos made small enough to travel inside of a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

SIDE = 160  # pixels: the longer side of a photo in a page
TINY = 48  # pixels: an image that is no larger stays as it is, and the browser enlarges it


def data_uri(image: Image.Image, side: int = SIDE) -> str:
    """An image in mode L or RGB as a data URI: WebP of at most `side` pixels, a tiny one as PNG, pixel for pixel."""
    packed = io.BytesIO()
    if max(image.size) <= TINY:
        image.save(packed, "PNG", optimize=True)
        kind = "png"
    else:
        small = image.copy()
        small.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
        small.save(packed, "WEBP", quality=76)
        kind = "webp"
    return f"data:image/{kind};base64,{base64.b64encode(packed.getvalue()).decode()}"


def read_thumbnails(
    read: Callable[[int], Image.Image], indices: Sequence[int], most_bytes: int, side: int = SIDE
) -> list[tuple[str, tuple[int, int]] | str]:
    """The data URI and the (width, height) of each image in turn, until they have `most_bytes`.

    `side` is the one of `data_uri`. The reason instead where an image cannot be read, which says that it has changed
    since it was tested.
    """

    def load(index: int) -> tuple[str, tuple[int, int]] | str:
        try:
            image = read(index)
            return data_uri(image, side), image.size
        except Exception as error:  # a decoder may raise anything on a broken file
            return " ".join(str(error).split())[:200] or type(error).__name__

    found: list[tuple[str, tuple[int, int]] | str] = []
    spent = 0
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(indices), 64):
            for item in pool.map(load, indices[start : start + 64]):
                spent += len(item) if isinstance(item, str) else len(item[0])
                if spent > most_bytes:
                    return found
                found.append(item)
    return found
