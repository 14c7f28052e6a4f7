"""The features of one network over some images: extracted once, then read from disk a stage at a time."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bbframe import __version__
from bbframe.data.data_module import DataModule
from bbframe.extraction.feature_store import FeatureStore
from bbframe.extraction.image_digest import countable_boxes, image_digests
from bbframe.extraction.stage_pooling import Key, StagePooling, network_digest

FLUSH_BYTES, FLUSH_SECONDS = 64 * 2**20, 5.0  # what a killed process may lose
VERSION = 1  # of how features are computed; another one computes them anew
MOST_PIXELS = 64 * 224 * 224  # of the images that pass through the network together


@dataclass
class ImageChoice:
    """Some images of a part of a data set: `indices` in the part, and the digest of each that can be read.

    `lost` are the others, {index: reason}.
    """

    part: str
    indices: list[int]
    digests: list[bytes]
    lost: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, data: DataModule, part: str, indices: Sequence[int]) -> ImageChoice:
        """Look at the content of images. Raises ValueError when none can be read."""
        digests, lost = image_digests(data.parts[part], indices)
        found = [(index, digest) for index, digest in zip(indices, digests, strict=True) if digest is not None]
        if not found:
            first = "".join(f"; {data.source(part, index)}: {why}" for index, why in list(lost.items())[:1])
            raise ValueError(f"data: none of {len(indices)} {part} images can be read{first}")
        return cls(part, [index for index, _ in found], [digest for _, digest in found], lost)


@dataclass
class FeatureSet:
    """Rows of features: an image each or, in detection, a true box each.

    `images` (rows,) int64 are places of images in their part, `labels` (rows,) int64 classes, `boxes` (rows, 4)
    float32 xyxy in pixels of the original images, None for whole images. `computed` counts the images that were not on
    disk, and `seconds` and `forward_seconds` are what they took, in all and in the network alone.
    """

    store: FeatureStore
    pooling: StagePooling
    digests: list[bytes]
    images: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray | None
    computed: int = 0
    seconds: float = 0.0
    forward_seconds: float = 0.0

    @property
    def keys(self) -> list[Key]:
        """What there is: (stage, kind), in network order."""
        return self.store.keys

    @property
    def stages(self) -> list[str]:
        """The names of the stages, in network order."""
        return list(dict.fromkeys(stage for stage, _ in self.keys))

    def kinds(self, stage: str) -> tuple[str, ...]:
        """How a stage's map became a vector: "mean", and "class_token" where there is one."""
        return tuple(kind for name, kind in self.keys if name == stage)

    def of_images(self, digests: Sequence[bytes]) -> FeatureSet:
        """The same set with the rows of some of its images, in the order given."""
        if list(digests) == self.digests:
            return self
        ends = np.cumsum([self.store.rows(digest) for digest in self.digests])
        spans = {d: (end - self.store.rows(d), end) for d, end in zip(self.digests, ends, strict=True)}
        kept = np.concatenate([np.arange(*spans[digest]) for digest in digests] or [np.zeros(0, np.int64)])
        rows = {"images": self.images[kept], "labels": self.labels[kept]}
        return replace(self, digests=list(digests), boxes=None if self.boxes is None else self.boxes[kept], **rows)

    def array(self, stage: str, kind: str = "mean") -> np.ndarray:
        """The features of a stage: (rows, C) float32."""
        return self.store.read((stage, kind), self.digests)


def store_of(pooling: StagePooling, data: DataModule, root: Path) -> FeatureStore:
    """Where the features of a network are kept below `root`: by its weights, and by all else that decides them."""
    preparation = {
        "preprocessing": dataclasses.asdict(data.preprocessing),
        "sizes": {name: getattr(data.options, name, None) for name in ("min_size", "max_size")},
        "keys": pooling.keys,
        "version": [VERSION, __version__],
        "device": pooling.net.device.type,
    }
    return FeatureStore(root / network_digest(pooling.net, preparation), pooling.keys)


def common_images(sets: Sequence[FeatureSet]) -> list[bytes]:
    """The digests of the images that all sets have, in the order of the first."""
    shared = set.intersection(*(set(one.digests) for one in sets))
    return [digest for digest in sets[0].digests if digest in shared]


def extract(
    pooling: StagePooling,
    data: DataModule,
    choice: ImageChoice,
    store: FeatureStore,
    advance: Callable[[int], None] = lambda count: None,
) -> FeatureSet:
    """The features of chosen images; those that are on disk already are not computed.

    `data` prepares the images for this network, whose device is used. `advance` is told how many images are done.
    An image that the data module cannot prepare is left out.
    """
    images = data.parts[choice.part]
    where = dict(zip(choice.indices, choice.digests, strict=True))
    missing = [index for index, digest in where.items() if digest not in store]
    advance(len(where) - len(missing))
    started, forward, computed = time.perf_counter(), 0.0, 0
    writer = _Writer(store)
    for batch in data.loader_of(choice.part, missing) if missing else ():
        began = time.perf_counter()
        places = batch["index"].tolist()
        counts, rows = pooled(pooling, batch)
        forward += time.perf_counter() - began
        writer.add([where[index] for index in places], counts, rows)
        computed += len(places)
        advance(len(places))
    writer.flush()
    kept = [(index, digest) for index, digest in where.items() if digest in store]
    labels, repeated, boxes = _row_facts(images, [index for index, _ in kept])
    return FeatureSet(
        store,
        pooling,
        [digest for _, digest in kept],
        repeated,
        labels,
        boxes,
        computed,
        time.perf_counter() - started if computed else 0.0,
        forward,
    )


def pooled(pooling: StagePooling, batch: dict[str, Any]) -> tuple[list[int], dict[Key, np.ndarray]]:
    """The rows of a batch, and how many each image has. Images of a detection batch are run by size, so that none is
    padded and none depends on its neighbours."""
    device = pooling.net.device
    if "target" not in batch:
        parts = [pooling.images(x.to(device)) for x in batch["image"].split(_at_once(batch["image"]))]
        return [1] * len(batch["index"]), {key: torch.cat([part[key] for part in parts]).numpy() for key in parts[0]}
    pixels: list[Tensor] = batch["image"]
    boxes = [target["boxes"][~target["crowd"]] for target in batch["target"]]
    rows: dict[int, dict[Key, Tensor]] = {}
    for places in _by_size(pixels):
        found = pooling.boxes(torch.stack([pixels[i] for i in places]).to(device), [boxes[i] for i in places])
        ends = np.cumsum([0, *(len(boxes[i]) for i in places)])
        for i, start, end in zip(places, ends[:-1], ends[1:], strict=True):
            rows[i] = {key: x[start:end] for key, x in found.items()}
    counts = [len(box) for box in boxes]
    return counts, {key: torch.cat([rows[i][key] for i in range(len(pixels))]).numpy() for key in pooling.keys}


def _at_once(pixels: Tensor) -> int:
    """How many images of a size (..., H, W) may pass through a network together."""
    return max(1, MOST_PIXELS // (pixels.shape[-2] * pixels.shape[-1]))


def _by_size(pixels: Sequence[Tensor]) -> Iterator[list[int]]:
    """The places of images of one size each, few enough to pass through a network together."""
    sizes: dict[tuple[int, ...], list[int]] = {}
    for place, image in enumerate(pixels):
        sizes.setdefault(tuple(image.shape), []).append(place)
    for places in sizes.values():
        step = _at_once(pixels[places[0]])
        yield from (places[start : start + step] for start in range(0, len(places), step))


def _row_facts(images: Any, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """The class, the image and, in detection, the box of each row."""
    if not hasattr(images, "boxes"):
        return np.array([int(images.labels[i]) for i in indices], np.int64), np.array(indices, np.int64), None
    labels, places, boxes = [], [], []
    for index in indices:
        found = countable_boxes(images, index)
        assert found is not None
        span = slice(images.offsets[index], images.offsets[index + 1])
        labels.append(images.classes[span][~images.crowd[span]])
        places.append(np.full(len(found), index))
        boxes.append(found)
    empty: list[np.ndarray] = [np.zeros(0, np.int64)]
    return (
        np.concatenate(labels or empty).astype(np.int64),
        np.concatenate(places or empty).astype(np.int64),
        np.concatenate(boxes).astype(np.float32).reshape(-1, 4) if boxes else np.zeros((0, 4), np.float32),
    )


class _Writer:
    """Gathers rows until they are worth a file."""

    def __init__(self, store: FeatureStore) -> None:
        self.store = store
        self._begin()

    def _begin(self) -> None:
        self.digests: list[bytes] = []
        self.counts: list[int] = []
        self.parts: dict[Key, list[np.ndarray]] = {key: [] for key in self.store.keys}
        self.bytes, self.began = 0, time.perf_counter()

    def add(self, digests: Sequence[bytes], counts: Sequence[int], rows: dict[Key, np.ndarray]) -> None:
        self.digests += digests
        self.counts += counts
        for key, found in rows.items():
            self.parts[key].append(found)
            self.bytes += found.nbytes
        if self.bytes > FLUSH_BYTES or time.perf_counter() - self.began > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        if self.digests:
            self.store.add(self.digests, self.counts, {key: np.concatenate(x) for key, x in self.parts.items()})
        self._begin()
