"""The perceptual hash of an image (pHash), and the images whose hashes differ in few bits.

pHash keeps the signs of the 63 lowest frequencies of a small grey copy against their median, so that another format,
size or compression changes few of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from PIL import Image

SIDE = 32  # pixels of the grey copy
LOW = 8  # frequencies along a side that are kept
BITS = LOW * LOW
NEAR_BITS = 6  # a pair that differs in no more is a candidate
FLAT = 32.0  # of an image whose strongest frequency is weaker, the bits would be noise
BLOCK_PAIRS = 2**22  # pairs compared at once

_ANGLES = np.pi * (2 * np.arange(SIDE) + 1)[None, :] * np.arange(LOW)[:, None] / (2 * SIDE)
_COSINES = np.cos(_ANGLES)  # (LOW, SIDE): the first rows of the discrete cosine transform
_SET_BITS = np.array([bin(value).count("1") for value in range(2**16)], np.uint8)


def perceptual_hash(image: Image.Image) -> np.uint64:
    """The 64 bits of an image; the first, of the mean brightness, is 0. An image of one colour has no bit set."""
    grey = image.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    low = (_COSINES @ np.asarray(grey, np.float64) @ _COSINES.T).ravel()
    if np.abs(low[1:]).max() < FLAT:
        return np.uint64(0)
    bits = low > np.median(low[1:])
    bits[0] = False
    return np.packbits(bits).view(">u8")[0].astype(np.uint64)


def differing_bits(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """In how many bits hashes differ, element by element: uint64 -> uint8."""
    return _SET_BITS[(one ^ other)[..., None].view(np.uint16)].sum(-1, dtype=np.uint8)


def similar_hashes(hashes: np.ndarray, most: int = NEAR_BITS) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of hashes (n,) that differ in at most `most` bits: places (pairs, 2), the lower first, and the bits.

    Two such hashes agree in at least one of `most` + 1 pieces, so that only those with an equal piece are compared.
    Hashes that are there more than once are compared once, and the pairs among them and with others follow: of equal
    hashes each is paired with the first one alone, so that a thousand blank images do not make a million pairs.
    """
    values, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    repeats = np.flatnonzero(first[inverse] != np.arange(len(hashes)))
    pairs = [np.stack([first[inverse[repeats]], repeats], 1)]
    for one, other in _with_an_equal_piece(values, most):
        near = differing_bits(values[one], values[other]) <= most
        pairs.append(np.stack([first[one[near]], first[other[near]]], 1))
    found = np.unique(np.sort(np.concatenate(pairs).reshape(-1, 2), axis=1), axis=0)
    return found, differing_bits(hashes[found[:, 0]], hashes[found[:, 1]])


def _with_an_equal_piece(values: np.ndarray, most: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The pairs of different hashes that agree in a piece, in blocks of places; a pair may come several times."""
    edges = np.linspace(0, BITS, most + 2).astype(int)
    for low, high in pairwise(edges.tolist()):
        piece = (values >> np.uint64(low)) & np.uint64(2 ** (high - low) - 1)
        order = np.argsort(piece, kind="stable")
        ends = np.flatnonzero(np.diff(piece[order])) + 1
        for members in np.split(order, ends):
            rows = max(1, BLOCK_PAIRS // len(members))
            for start in range(0, len(members) - 1, rows):
                one = np.arange(start, min(start + rows, len(members)))
                left, right = np.nonzero(one[:, None] < np.arange(len(members))[None, :])
                yield members[one[left]], members[right]
