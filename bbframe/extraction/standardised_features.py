"""Features with mean 0 and deviation 1, read in row blocks, and the directions in which they vary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BLOCK = 2**22  # float64 numbers in a block of rows: 32 MiB
KEPT = 1536  # rows whose products (n, n) are kept for every stage: 18 MiB each
CONSTANT = 1e-6  # a deviation below this share of the mean is rounding of float32
RANK = 1e-12  # eigenvalues below this share of the largest are rounding of float64


class Spectrum(NamedTuple):
    """Eigenvalues (r,), falling, of X'X; axes (C, r) unless n < C; coordinates (n, r) of few rows."""

    values: NDArray[np.float64]
    axes: NDArray[np.float64] | None
    coordinates: NDArray[np.float64] | None


class StandardisedFeatures:
    """Rows of float32 or float64 features, standardised in float64 as they are read.

    `parts` are arrays (n, C_i) that stand side by side, memory maps too; no more than a block of rows is converted at
    a time. A constant feature becomes 0. Raises ValueError without rows, and for values that are not finite.
    """

    def __init__(self, *parts: NDArray) -> None:
        self.parts = [np.asarray(part).reshape(len(part), -1) for part in parts]
        self.rows, self.channels = len(self.parts[0]), sum(part.shape[1] for part in self.parts)
        if not self.rows or not self.channels:
            raise ValueError(
                f"features of shape ({self.rows}, {self.channels}) hold nothing to score; take more images"
            )
        with np.errstate(over="ignore", invalid="ignore"):
            self.mean = sum(raw.sum(axis=0) for _, raw in self.raw_blocks()) / self.rows
            variance = sum(((raw - self.mean) ** 2).sum(axis=0) for _, raw in self.raw_blocks()) / self.rows
        if not np.isfinite(variance).all():
            raise ValueError(_not_finite(self))
        deviation = np.sqrt(variance)
        varies = deviation > CONSTANT * np.abs(self.mean)
        self.weight = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)

    @classmethod
    def of(cls, X: NDArray | StandardisedFeatures) -> StandardisedFeatures:
        """The features themselves if they are standardised, so that scores share their spectrum."""
        return X if isinstance(X, StandardisedFeatures) else cls(X)

    def raw_blocks(self) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        """The place of each block of rows, and its rows (b, C) as they are, in float64."""
        for rows in row_blocks(self.rows, self.channels):
            yield rows, np.concatenate([part[rows] for part in self.parts], axis=1, dtype=np.float64)

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        """The place of each block of rows, and its standardised rows (b, C)."""
        for rows, raw in self.raw_blocks():
            raw -= self.mean
            raw *= self.weight
            yield rows, raw

    def column_blocks(self) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        """The place of each block of columns, and its columns (n, c) as they are, in float64; a block has one part."""
        offset = 0
        for part in self.parts:
            for columns in row_blocks(part.shape[1], self.rows):
                place = slice(offset + columns.start, offset + columns.stop)
                yield place, part[:, columns].astype(np.float64)
            offset += part.shape[1]

    @classmethod
    def joined(cls, sets: Sequence[StandardisedFeatures]) -> StandardisedFeatures:
        """The features of all sets side by side, without reading them again."""
        features = cls.__new__(cls)
        features.parts = [part for each in sets for part in each.parts]
        features.rows, features.channels = sets[0].rows, sum(each.channels for each in sets)
        features.mean = np.concatenate([each.mean for each in sets])
        features.weight = np.concatenate([each.weight for each in sets])
        if features.rows < features.channels and features.rows <= KEPT:
            features.outer_product = sum((each.outer_product for each in sets[1:]), start=sets[0].outer_product)
        return features

    @cached_property
    def outer_product(self) -> NDArray[np.float64]:
        """XX' (n, n), computed once; only for few rows."""
        product = np.zeros((self.rows, self.rows))
        for place, columns in self.column_blocks():
            columns -= self.mean[place]
            columns *= self.weight[place]
            product += columns @ columns.T
        return product

    @cached_property
    def spectrum(self) -> Spectrum:
        """Computed once: from X'X (C, C), or from XX' (n, n) when there are fewer rows than features."""
        if self.rows < self.channels:
            values, vectors = _eigen(self.outer_product)
            return Spectrum(values, None, vectors * np.sqrt(values))
        gram = np.zeros((self.channels, self.channels))
        for _, block in self.blocks():
            gram += block.T @ block
        values, vectors = _eigen(gram)
        if self.rows > KEPT:
            return Spectrum(values, vectors, None)
        return Spectrum(values, vectors, np.concatenate([block @ vectors for _, block in self.blocks()]))

    def principal_blocks(self) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        """The place of each block of rows, and its rows in principal coordinates (b, r): distances are the same."""
        spectrum = self.spectrum
        if spectrum.coordinates is not None:
            for rows in row_blocks(self.rows, max(1, len(spectrum.values))):
                yield rows, spectrum.coordinates[rows]
        elif spectrum.axes is not None:
            for rows, block in self.blocks():
                yield rows, block @ spectrum.axes


def row_blocks(rows: int, columns: int) -> Iterator[slice]:
    """Slices that cover all rows, each with at most BLOCK numbers, and one row or more."""
    step = max(1, BLOCK // columns)
    for start in range(0, rows, step):
        yield slice(start, min(rows, start + step))


def _eigen(matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The eigenvalues that are not 0, falling, and their vectors."""
    values, vectors = np.linalg.eigh(matrix)
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = values > RANK * max(float(values[0]), 0.0)
    return values[kept], np.ascontiguousarray(vectors[:, kept])


def _not_finite(features: StandardisedFeatures) -> str:
    count, first = 0, None
    for rows, raw in features.raw_blocks():
        bad = ~np.isfinite(raw)
        count += int(bad.sum())
        if first is None and bad.any():
            first = rows.start + int(bad.any(axis=1).argmax())
    if first is None:
        return "features are too large for float64: their squares overflow; compute them with trainer.precision=32"
    return (
        f"features hold {count} values that are not finite (the first in row {first}); compute them with "
        "trainer.precision=32, or leave this backbone out"
    )
