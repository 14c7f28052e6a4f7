"""How large the boxes of a data set are: in their images, by COCO's buckets, and for the network."""

from __future__ import annotations

import numpy as np

from bbframe.data.boxes.box_options import DetectionDataOptions
from bbframe.data.boxes.objects import Objects

BUCKETS = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, float("inf"))}  # areas, by COCO


def box_sides(objects: Objects) -> np.ndarray:
    """The (width, height) of each box that counts, in pixels of its image: (objects without crowds, 2) float64."""
    boxes = objects.boxes[~objects.crowd].astype(np.float64)
    return boxes[:, 2:] - boxes[:, :2]


def scales(options: DetectionDataOptions, objects: Objects) -> np.ndarray:
    """By how much an evaluation enlarges the image of each box that counts: (objects without crowds,) float64."""
    owners = np.repeat(np.arange(len(objects.sizes)), np.diff(objects.offsets))[~objects.crowd]
    sizes = objects.sizes[owners].astype(np.float64)
    factors = np.ones(len(sizes))
    if options.min_size is not None:
        factors = options.min_size / sizes.min(1, initial=np.inf)
    if options.max_size is not None:
        factors = np.minimum(factors, options.max_size / sizes.max(1, initial=1))
    return factors


def below_stride(options: DetectionDataOptions, objects: Objects, stride: int) -> np.ndarray:
    """Which boxes that count are, once the image is resized, less than `stride` pixels wide or high: (...,) bool.

    Such a box lies within one cell of the finest map, whose stride that is.
    """
    return (box_sides(objects) * scales(options, objects)[:, None]).min(1, initial=np.inf) < stride


def buckets(sides: np.ndarray) -> dict[str, int]:
    """How many boxes of some sides (n, 2) are small, medium and large."""
    areas = sides[:, 0] * sides[:, 1]
    return {name: int(((areas >= low) & (areas < high)).sum()) for name, (low, high) in BUCKETS.items()}
