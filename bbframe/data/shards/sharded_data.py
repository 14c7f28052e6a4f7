"""Data modules of any kind whose images come from shards: `data.shards`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bbframe.data.boxes.box_data import DetectionDataModule
from bbframe.data.data_module import DataModule, ImageDataModule
from bbframe.data.exclusion import read_exclusion
from bbframe.data.loading_options import FileOptions, LoadingOptions
from bbframe.data.shards.shard_set import OpenedSet, open_set
from bbframe.data.split import stratified
from bbframe.preprocessing import Preprocessing
from bbframe.registry import find


def make_sharded(options: LoadingOptions, *, masks: bool = False, **settings: Any) -> DataModule:
    """The data module that `options` describe, over the images of `options.shards`.

    Raises ValueError for a set that is broken, of another task, or without the masks that are asked for.
    """
    kind = find("data", options.name).load()
    found = open_set(options)
    if masks and not found.masks:
        raise ValueError(
            f"data: shards={options.shards} holds no masks; write it with `bbframe data shard ... --masks`, or choose "
            "a head without"
        )
    if found.bits is not None and getattr(options, "bits", 0) is None:
        options = replace(options, bits=found.bits)  # type: ignore[call-arg]
    divide(found, options)
    settings |= {"skipped": found.skipped, "exclusion": read_exclusion(options.exclude)}
    if options.task == "classification":
        return ShardedImages(options, found, kind, **settings)
    return ShardedBoxes(options, found, kind, masks=masks, **settings)


def divide(found: OpenedSet, options: LoadingOptions) -> None:
    """Take the parts that the set lacks out of train, if the options ask for it or nothing else can validate."""
    if not isinstance(options, FileOptions):
        return
    for part in ("val", "test"):
        if part in found.parts and (fraction := getattr(options, f"{part}_fraction")) is not None:
            raise ValueError(f"data: {part}_fraction={fraction} must be null: the shards hold {part} images")
    fractions = options.fractions(found.parts, test=0.0 if len(found.parts) > 1 else 0.15)
    if not fractions:
        return
    train: Any = found.parts["train"]
    shown = train.labels if options.task == "classification" else [int(len(row) > 0) for row in train.labels]
    names = [train.name(index) for index in range(len(train.index))]
    split = stratified(names, list(map(int, shown)), fractions, options.split_seed)
    if not split["train"] or not all(split[part] for part in fractions):
        raise ValueError(f"data: {len(names)} images are too few to split into {', '.join(split)}; add some")
    found.parts |= {part: train.select(indices) for part, indices in split.items()}


class _Sharded(DataModule):
    """A data module over the parts of a set, prepared as those of their own `kind` are."""

    def __init__(self, options: Any, found: OpenedSet, kind: Any, **settings: Any):
        self._kind = kind
        parts: dict[str, Any] = {**found.parts}
        super().__init__(options, parts, found.class_names, **settings)

    def adjusted(self, preprocessing: Preprocessing) -> Preprocessing:
        return self._kind.adjusted(self, preprocessing) if hasattr(self._kind, "adjusted") else preprocessing


class ShardedImages(_Sharded, ImageDataModule):
    """Labelled images from shards."""


class ShardedBoxes(_Sharded, DetectionDataModule):
    """Images with objects from shards."""

    def __init__(self, options: Any, found: OpenedSet, kind: Any, **settings: Any):
        super().__init__(options, found, kind, **settings)
        self.category_ids = found.category_ids or self.category_ids
        self._part_ids = found.part_ids

    def image_id(self, part: str, index: int) -> int | str:
        images: Any = self.parts[part]
        return images.index.image_id(index)

    def part_category_ids(self, part: str) -> list[int]:
        return self._part_ids.get(part, self.category_ids)
