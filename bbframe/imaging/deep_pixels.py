"""Pixels of 16 bits: read whole, which Pillow does not, and scaled to 8 by the bits that count."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from PIL import Image

from bbframe.imaging.image_files import ImageSource, open_image, open_source

_SAMPLE_BITS, _PHOTOMETRIC = 258, 262  # tags of a TIFF


def deep_pixels(path: ImageSource, image: Image.Image) -> np.ndarray | None:
    """The values of 16-bit pixels, (H, W) or (H, W, C) up to 65535, None for others; Pillow keeps half their bits."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        values = np.asarray(image).astype(np.uint32)
        tags: Any = getattr(image, "tag_v2", {})
        if tags.get(_PHOTOMETRIC) == 0:  # 0 is white; of 8 bits Pillow knows
            return 2 ** tags[_SAMPLE_BITS][0] - 1 - values
        return values
    tiles: list[Any] = getattr(image, "tile", [])
    tile = tiles[0] if tiles else None
    raw = "" if tile is None else tile.args if isinstance(tile.args, str) else str(tile.args[0])
    if raw.endswith(";16N"):  # as it comes from a compressed TIFF: in this machine's order
        order = {"little": "L", "big": "B"}[sys.byteorder]
        raw = raw[:-1] + order
    if tile is None or not raw.endswith((";16B", ";16L")):
        return None
    # unpacked as if the other byte came first, it is the low one that is kept; grey with alpha is unpacked as bytes
    other = "RGBA" if raw == "LA;16B" else raw[:-1] + ("L" if raw.endswith("B") else "B")
    with open_image(path, image.width * image.height) as low:
        low.tile = [tile._replace(args=other if isinstance(tile.args, str) else (other, *tile.args[1:]))]
        pair = np.asarray(low).astype(np.uint32)
    if raw == "LA;16B":
        return pair[..., ::2] * 256 + pair[..., 1::2]
    return np.asarray(image).astype(np.uint32) * 256 + pair


def told_bits(path: ImageSource, image: Image.Image) -> int | None:
    """The significant bits of 16 that a PNG names (sBIT)."""
    if image.format != "PNG":
        return None
    with open_source(path) as file:
        head = file.read(4096).partition(b"IDAT")[0]
    place = head.find(b"sBIT")
    return head[place + 4] if 0 <= place < len(head) - 4 and 0 < head[place + 4] <= 16 else None


def significant_bits(peak: int) -> int:
    """The bits of a camera, a scanner or a map of labels whose largest value is `peak`."""
    return next(bits for bits in (8, 10, 12, 14, 16) if peak < 2**bits)


def scaled(pixels: np.ndarray, bits: int | None, assumed: list[str]) -> Image.Image:
    """16-bit values, of which `bits` are significant, in 8 bits."""
    if bits is None:
        bits = 12 if 1024 <= peak_value(pixels) < 4096 else 16
        if bits == 12:
            assumed.append("16-bit images whose values have 12 bits")
    most = 2**bits - 1
    return Image.fromarray(((pixels.clip(0, most) * 255 + most // 2) // most).astype(np.uint8))


def peak_value(pixels: np.ndarray) -> int:
    """The largest value of (H, W) or (H, W, C), transparency left out."""
    colours = pixels[..., :-1] if pixels.ndim == 3 and pixels.shape[2] in (2, 4) else pixels
    return int(colours.max(initial=0))


def scaled_to_bytes(pixels: np.ndarray) -> Image.Image:
    """16-bit values (H, W) or (H, W, C), of which the largest says whether 12 or 16 bits count, as an 8-bit image."""
    return scaled(pixels, None, [])
