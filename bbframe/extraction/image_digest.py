"""What an image is, whatever its file is called: the key by which its features are found again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np


def image_digest(images: Any, index: int, boxes: np.ndarray | None = None) -> bytes:
    """The SHA-256 of an image of a data set, and of the boxes (N, 4) in it whose features are asked for.

    Files count by their content and the way that they are decoded, images in memory by their pixels. Raises what a
    file that cannot be read raises.
    """
    digest = hashlib.sha256()
    paths, root = getattr(images, "paths", None), getattr(images, "root", None)
    if paths is not None and root is not None:
        digest.update((root / paths[index]).read_bytes())
        digest.update(repr(getattr(images, "decoding", None)).encode())
    else:
        image = images.read(index)
        digest.update(f"{image.mode} {image.size} ".encode() + image.tobytes())
    if boxes is not None:
        digest.update(b"boxes" + np.ascontiguousarray(boxes, np.float32).tobytes())
    return digest.digest()


def image_digests(images: Any, indices: Sequence[int]) -> tuple[list[bytes | None], dict[int, str]]:
    """The digest of each image, None for one that cannot be read, and {index: reason} of those."""
    from bbframe.imaging.decode import reason

    found: list[bytes | None] = []
    lost: dict[int, str] = {}
    for index in indices:
        try:
            found.append(image_digest(images, index, countable_boxes(images, index)))
        except Exception as error:  # a decoder may raise anything on a broken file
            found.append(None)
            lost[index] = reason(error)
    return found, lost


def countable_boxes(images: Any, index: int) -> np.ndarray | None:
    """The boxes (N, 4) of an image that are no crowds, xyxy in its own pixels; None where images have no boxes."""
    if not hasattr(images, "boxes"):
        return None
    span = slice(images.offsets[index], images.offsets[index + 1])
    boxes: np.ndarray = images.boxes[span][~images.crowd[span]]
    return boxes
