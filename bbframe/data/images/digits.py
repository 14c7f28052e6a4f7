"""scikit-learn's handwritten digits: 1,797 real 8x8 scans, which come with the package."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from bbframe.data.data_module import ImageDataModule
from bbframe.data.images.image_options import DigitsOptions
from bbframe.data.split import stratified
from bbframe.preprocessing import Preprocessing


class Scans:
    """Some of the scans, by their `indices` among all."""

    def __init__(self, indices: Sequence[int]):
        pixels, labels = scans()
        self.indices = indices
        self.pixels, self.labels = pixels[list(indices)], [labels[i] for i in indices]

    def read(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index])

    def name(self, index: int) -> str:
        return f"scan {self.indices[index]}"

    def select(self, indices: Sequence[int]) -> Scans:
        return Scans([self.indices[i] for i in indices])


@functools.cache
def scans() -> tuple[np.ndarray, list[int]]:
    """All pixels, (1797, 8, 8) uint8 in 0..255, and all labels. The ink's 0..16 becomes 0..255."""
    from sklearn.datasets import load_digits  # seconds to import

    data = load_digits()
    return np.round(data.images * (255 / 16)).astype(np.uint8), data.target.tolist()


@functools.cache
def parted() -> dict[str, list[int]]:
    """Which scans are for training, validation and test: 70 %, 15 % and 15 % of each digit."""
    labels = scans()[1]
    return stratified([str(i) for i in range(len(labels))], labels, {"val": 0.15, "test": 0.15}, seed=0)


class Digits(ImageDataModule):
    """Ten classes; the scans of each part are the same whatever the run's seed."""

    def __init__(self, options: DigitsOptions, **settings: Any):
        parts = {part: Scans(indices) for part, indices in parted().items()}
        super().__init__(options, parts, [str(digit) for digit in range(10)], **settings)

    def adjusted(self, preprocessing: Preprocessing) -> Preprocessing:
        return replace(preprocessing, crop_mode="squash")  # a crop would cut off strokes: the scans have no margin
