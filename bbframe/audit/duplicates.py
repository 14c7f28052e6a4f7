"""Images that are there twice: exactly, nearly by their pixels, and nearly by what a network makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bbframe.audit.perceptual_hash import NEAR_BITS, similar_hashes
from bbframe.extraction.cosine_neighbours import nearest_rows

NEAR_PIXELS = 12.0  # of 255: how far the small copies of near duplicates may lie apart, root mean square
NEAR_COSINE = 0.98  # of centred features
NEIGHBOURS = 5  # of an image that are looked at


class NearPair(NamedTuple):
    """Two images, by their places, that show nearly the same; `score` in [0, 1] is 1 for equal ones."""

    one: int
    other: int
    score: float


def equal_groups(digests: Sequence[bytes | None]) -> list[list[int]]:
    """The places of images with equal digests, a list for each digest that several have; None is equal to nothing."""
    found: dict[bytes, list[int]] = {}
    for place, digest in enumerate(digests):
        if digest is not None:
            found.setdefault(digest, []).append(place)
    return [group for group in found.values() if len(group) > 1]


def near_by_hash(hashes: np.ndarray, small: np.ndarray, most: int = NEAR_BITS) -> list[NearPair]:
    """Pairs with similar perceptual hashes (n,) whose small copies (n, ...) in 0..255 are alike too; the best first.

    A hash alone takes blank images, and drawings on an equal ground, for the same.
    """
    pairs, _ = similar_hashes(hashes, most)
    flat = small.reshape(len(small), -1)
    found = []
    for start in range(0, len(pairs), 2**14):
        block = pairs[start : start + 2**14]
        apart = flat[block[:, 0]].astype(np.float32) - flat[block[:, 1]]
        distances = np.sqrt(np.square(apart).mean(1))
        contrast = np.minimum(*(flat[block[:, side]].std(1) for side in (0, 1)))
        limits = np.minimum(NEAR_PIXELS, 0.15 * contrast + 2)  # of pale images little is much
        chosen = np.flatnonzero(distances <= limits)
        found += [NearPair(int(block[i, 0]), int(block[i, 1]), 1 - float(distances[i]) / 255) for i in chosen]
    return sorted(found, key=lambda pair: -pair.score)


def near_by_features(features: np.ndarray, least: float = NEAR_COSINE) -> list[NearPair]:
    """Pairs whose features (n, C) have a cosine of at least `least` once their mean is taken off; the best first."""
    count = len(features)
    if count < 3:
        return []
    centred = features - features.mean(0, dtype=np.float64).astype(np.float32)
    similarities, places = nearest_rows(centred, None, min(NEIGHBOURS, count - 1))
    rows, columns = np.nonzero(similarities >= least)
    pairs = {
        (min(one, other), max(one, other)): float(similarities[one, column])
        for one, column in zip(rows.tolist(), columns.tolist(), strict=True)
        for other in [int(places[one, column])]
    }
    return sorted((NearPair(*pair, min(1.0, score)) for pair, score in pairs.items()), key=lambda pair: -pair.score)
