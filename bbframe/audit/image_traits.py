"""What each image of a data set is, read once: size, digest of the pixels, perceptual hash, a small copy."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from bbframe.audit.perceptual_hash import perceptual_hash
from bbframe.data.batch_loader import Images
from bbframe.imaging.decode import reason

SMALL = 16  # pixels: the side of the small copies, which stand in for a network's features
TOGETHER = 256  # images that are read before the next ones are begun


@dataclass
class ImageTraits:
    """The images of a data set in one list, part after part; `places` says which is which.

    `errors` (n,) is why an image cannot be read, empty for one that can. The other fields of an unreadable image are
    zeros: `sizes` (n, 2) width and height, `hashes` (n,) uint64, `small` (n, SMALL, SMALL, 3) uint8. `digests` are the
    SHA-256 of size and RGB pixels, None for an unreadable image.
    """

    places: list[tuple[str, int]]
    errors: list[str]
    sizes: np.ndarray
    digests: list[bytes | None]
    hashes: np.ndarray
    small: np.ndarray

    @property
    def readable(self) -> np.ndarray:
        """The numbers of the images that can be read."""
        return np.flatnonzero([not error for error in self.errors])

    @property
    def pixel_features(self) -> np.ndarray:
        """The small copies as rows: (n, 3 * SMALL**2) float32 in 0..1."""
        return self.small.reshape(len(self.small), -1).astype(np.float32) / 255


def read_traits(parts: Mapping[str, Images], tell: Callable[[int, int], None] = lambda done, of: None) -> ImageTraits:
    """Decode every image once; `tell` hears how many are done. What a decoder raises becomes an image's error."""
    places = [(part, index) for part, images in parts.items() for index in range(len(images.labels))]
    count = len(places)
    traits = ImageTraits(
        places,
        [""] * count,
        np.zeros((count, 2), np.int64),
        [None] * count,
        np.zeros(count, np.uint64),
        np.zeros((count, SMALL, SMALL, 3), np.uint8),
    )

    def look(number: int) -> None:
        part, index = places[number]
        try:
            image = parts[part].read(index).convert("RGB")
            traits.digests[number] = hashlib.sha256(repr(image.size).encode() + image.tobytes()).digest()
            traits.sizes[number] = image.size
            traits.hashes[number] = perceptual_hash(image)
            traits.small[number] = np.asarray(image.resize((SMALL, SMALL), Image.Resampling.BOX))
        except Exception as error:  # a decoder may raise anything on a broken file
            traits.errors[number], traits.digests[number] = reason(error) or type(error).__name__, None

    with ThreadPoolExecutor() as pool:
        for start in range(0, count, TOGETHER):
            list(pool.map(look, range(start, min(start + TOGETHER, count))))
            tell(min(start + TOGETHER, count), count)
    return traits
