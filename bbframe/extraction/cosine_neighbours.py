"""The nearest rows by cosine, in blocks, so that no table of all pairs is ever in memory."""

from __future__ import annotations

import numpy as np

BLOCK_VALUES = 2**24  # similarities in memory at once


def nearest_rows(X: np.ndarray, Y: np.ndarray | None, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The `k` rows of `Y` that are nearest to each row of `X` by cosine, the nearest first.

    `X` (n, C) and `Y` (m, C) are features; without `Y` the rows of `X` are compared with each other, each without
    itself. Returns similarities (n, k) float32 and places (n, k) int64. Products are of float32; of equal similarities
    the lower place comes first, whatever the block. A row of zeros has the similarity 0 to every other. Raises
    ValueError unless `k` is at least 1 and no more than there are rows to choose from.
    """
    alone = Y is None
    queries = unit_rows(X)
    keys = queries if Y is None else unit_rows(Y)
    count = len(keys) - alone
    if not 1 <= k <= count:
        raise ValueError(f"nearest_rows: k={k} must be within 1..{count}, the rows that there are")
    similarities, places = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    rows = max(1, BLOCK_VALUES // len(keys))
    for start in range(0, len(queries), rows):
        block = queries[start : start + rows] @ keys.T
        if alone:
            inside = np.arange(len(block))
            block[inside, start + inside] = -np.inf
        top = _top(block, k)
        similarities[start : start + rows], places[start : start + rows] = np.take_along_axis(block, top, 1), top
    return similarities, places


def unit_rows(X: np.ndarray) -> np.ndarray:
    """Rows of length 1 in float32; rows of zeros stay zeros."""
    rows = np.asarray(X, np.float32)
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))[:, None]
    return np.ascontiguousarray(rows / np.where(lengths > 0, lengths, 1).astype(np.float32))


def _top(block: np.ndarray, k: int) -> np.ndarray:
    """The places of the `k` largest values of each row, in falling order; of equal values the lower place first."""
    if k == block.shape[1]:
        return np.argsort(-block, axis=1, kind="stable")
    least = np.partition(block, block.shape[1] - k, axis=1)[:, -k]
    top = np.empty((len(block), k), np.int64)
    for number, (row, value) in enumerate(zip(block, least, strict=True)):
        found = np.flatnonzero(row >= value)  # more than k where the last value is there several times
        top[number] = found[np.argsort(-row[found], kind="stable")[:k]]
    return top
