"""The images of a part as a data module wants them, read from shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bbframe.data.boxes.objects import Objects, Rows
from bbframe.data.shards.shard_index import ShardIndex
from bbframe.data.shards.shard_order import FetchingAhead, windowed_permutation
from bbframe.imaging.decode import AS_USUAL, Decoding, read_image
from bbframe.imaging.jpeg_file import JpegFile, plain_jpeg


class Shards(Protocol):
    """The files of a part."""

    def read(self, shard: int, offset: int, size: int) -> bytes:
        """The image file at a place that the index names."""

    def fetch(self, shard: int) -> None:
        """Have a file on this machine before it is read."""


@dataclass
class ShardReading:
    """How a part is read: its `shards`, how many of them are mixed (None: all), whether they are `far`, decoding."""

    shards: Shards
    window: int | None = None
    far: bool = False
    decoding: Decoding = AS_USUAL


class _FromShards:
    """What images of both tasks have in common."""

    index: ShardIndex
    reading: ShardReading

    def content(self, index: int) -> bytes:
        """The image file."""
        place = self.index
        return self.reading.shards.read(int(place.shard[index]), int(place.offset[index]), int(place.size[index]))

    def name(self, index: int) -> str:
        return self.index.name(index)

    @property
    def digests(self) -> np.ndarray | None:
        """64 bits of the SHA-256 of each file: (images,) uint64, None where nobody has looked."""
        return self.index.digests

    def permutation(self, generator: torch.Generator) -> Tensor:
        """The order of an epoch of training."""
        return windowed_permutation(self.index.shard, self.reading.window, generator)

    def fetching_ahead(self, order: Any) -> Any:
        """An order whose shards are fetched ahead of the readers, where they are far."""
        if not self.reading.far:
            return order
        shards = max(1, len(np.unique(self.index.shard)))
        images = (self.reading.window or shards) * -(-len(self.index) // shards)
        return FetchingAhead(order, self.index.shard, images, self.reading.shards.fetch)


@dataclass
class ShardImages(_FromShards):
    """Labelled images; `labels` (images,) int64 may be changed."""

    index: ShardIndex
    reading: ShardReading

    def __post_init__(self) -> None:
        assert self.index.labels is not None
        self.labels = self.index.labels.astype(np.int64)

    @property
    def sizes(self) -> np.ndarray | None:
        """Heights and widths, (images, 2), None where nobody has looked."""
        return self.index.sizes

    def read(self, index: int) -> Image.Image:
        return read_image(self.content(index), self.reading.decoding)

    def plain_jpeg(self, index: int) -> JpegFile | None:
        return plain_jpeg(self.content(index), self.reading.decoding)

    def select(self, indices: Sequence[int] | np.ndarray) -> ShardImages:
        chosen = ShardImages(self.index.select(indices), self.reading)
        chosen.labels = self.labels[np.asarray(indices, np.int64)]
        return chosen


@dataclass
class ShardObjects(Objects, _FromShards):
    """Images with objects."""

    index: ShardIndex
    reading: ShardReading

    @classmethod
    def of(cls, index: ShardIndex, reading: ShardReading) -> ShardObjects:
        """The images that an index describes."""
        found: dict[str, Any] = {key: getattr(index, key) for key in ("sizes", "boxes", "classes", "crowd", "area")}
        assert index.object_offsets is not None
        return cls(offsets=index.object_offsets, index=index, reading=reading, **found)

    def read(self, index: int) -> Image.Image:
        height, width = self.sizes[index].tolist()
        image = read_image(self.content(index), self.reading.decoding, (width, height))
        if image.size != (width, height):
            raise ValueError(f"is {image.width}x{image.height}, but its annotations say {width}x{height}")
        return image

    def draw(self, number: int, mask: np.ndarray) -> None:
        from faster_coco_eval.core.mask import decode

        assert isinstance(self.index.masks, Rows)
        mask[:] = decode({"size": list(mask.shape), "counts": self.index.masks[number].tobytes()})

    def select(self, indices: Sequence[int] | np.ndarray) -> ShardObjects:
        return ShardObjects.of(self.index.select(indices), self.reading)
