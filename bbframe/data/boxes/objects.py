"""The objects of many images in a few arrays: a dict a box would fill the memory."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass
class Rows(Sequence[Any]):
    """Rows of different lengths, one after another in `values`: row i ends before `offsets[i + 1]`."""

    values: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: Any) -> Any:
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def select(self, indices: np.ndarray) -> Rows:
        """Some of the rows, in the order given."""
        places, offsets = rows_of(self.offsets, indices)
        return Rows(self.values[places], offsets)

    def fits(self, length: int) -> bool:
        """Whether there are `length` rows, which the values hold one after another."""
        there = len(self.offsets) == length + 1 and self.offsets[0] == 0 and self.offsets[-1] == len(self.values)
        return bool(there and (np.diff(self.offsets) >= 0).all())


def rows_of(offsets: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the values of some rows lie among those of all, and the `offsets` that these rows then have."""
    lengths = offsets[indices + 1] - offsets[indices]
    new = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return np.repeat(offsets[indices] - new[:-1], lengths) + np.arange(new[-1]), new


def flat_labels(images: Any) -> np.ndarray:
    """The classes of all images of a part, or of all their objects, one after another: int64."""
    labels = images.labels
    if isinstance(labels, Rows):
        return labels.values.astype(np.int64)
    if isinstance(labels, (np.ndarray, array)):
        return np.asarray(labels).ravel().astype(np.int64)
    return np.concatenate([np.zeros(0, np.int64), *map(np.ravel, labels)]).astype(np.int64)


@dataclass
class Objects:
    """What some images show, in pixels of the original images.

    `offsets` (images + 1,) says which objects are whose; `sizes` (images, 2) are heights and widths; `boxes` (objects,
    4) float32 xyxy, `classes` (objects,) int64, `crowd` (objects,) bool, `area` (objects,) float32.
    """

    sizes: np.ndarray
    offsets: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray
    area: np.ndarray

    @property
    def labels(self) -> Rows:
        """The classes of each image's objects."""
        return Rows(self.classes, self.offsets)

    def target(self, index: int, masks: bool) -> dict[str, Tensor]:
        """`boxes`, `labels`, `crowd`, `area`, the image's `size` and, if asked for, `masks` (N, H, W) uint8."""
        place = slice(self.offsets[index], self.offsets[index + 1])
        columns = {"boxes": self.boxes, "labels": self.classes, "crowd": self.crowd, "area": self.area}
        target = {name: torch.from_numpy(column[place].copy()) for name, column in columns.items()}
        target["size"] = torch.tensor(self.sizes[index], dtype=torch.int64)
        if masks:
            height, width = self.sizes[index]
            target["masks"] = torch.zeros(len(target["boxes"]), height, width, dtype=torch.uint8)
            for mask, number in zip(target["masks"], range(place.start, place.stop), strict=True):
                self.draw(number, mask.numpy())
        return target

    def chosen(self, indices: Sequence[int]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The places of the objects of some images, and the fields that these images then have."""
        chosen = np.asarray(indices, np.int64)
        kept, offsets = rows_of(self.offsets, chosen)
        fields = {key: getattr(self, key)[kept] for key in ("boxes", "classes", "crowd", "area")}
        return kept, {**fields, "sizes": self.sizes[chosen], "offsets": offsets}

    def draw(self, number: int, mask: np.ndarray) -> None:
        """Set the pixels of one object in `mask` (H, W), which holds zeros."""
        raise NotImplementedError
