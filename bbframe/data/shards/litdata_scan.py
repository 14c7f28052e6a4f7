"""Open litdata's chunks that other programs wrote: each sample is looked at once for its class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from bbframe.data.faults import Skipped
from bbframe.data.loading_options import LoadingOptions
from bbframe.data.shards.kept_scans import Scanned, keep_scan, kept_scan
from bbframe.data.shards.litdata_shards import LITDATA_INDEX, LitdataShards, label_of
from bbframe.data.shards.shard_cache import bytes_of, default_cache
from bbframe.data.shards.shard_images import ShardImages
from bbframe.data.shards.shard_index import ShardIndex, packed_rows
from bbframe.data.shards.shard_places import ShardFile, ShardPlace
from bbframe.data.shards.shard_set import OpenedSet, reading_of

PARTS = ("train", "val", "test")


def litdata_parts(place: ShardPlace) -> dict[str, str]:
    """The folder of each part that holds chunks; {"train": ""} where the place itself does, {} where none does."""
    if not place.far:
        found = {part: part for part in PARTS if place.path(ShardFile(f"{part}/{LITDATA_INDEX}")).is_file()}
        if "train" in found or not place.path(ShardFile(LITDATA_INDEX)).is_file():
            return found if "train" in found else {}
    return {"train": ""}


def open_litdata(options: LoadingOptions, place: ShardPlace, folders: dict[str, str]) -> OpenedSet:
    """The chunks in the folders of the parts. Raises ValueError in one line when they cannot serve."""
    if options.task != "classification":
        raise ValueError(f"data: shards={place} are litdata's chunks of another program, which tell no boxes")
    cache = Path(options.shard_cache).expanduser() if options.shard_cache else default_cache()
    most = bytes_of(options.shard_cache_size)
    shards = {part: LitdataShards(f"{place}/{name}".rstrip("/"), cache, most) for part, name in folders.items()}
    files = {part: [ShardFile(f"{name}/{LITDATA_INDEX}".lstrip("/"))] for part, name in folders.items()}
    found = kept_scan(options, place, files)
    if found is None:
        found = keep_scan(options, place, files, _scanned(place, shards, files))
    indexes, class_names, _ = found
    parts: Any = {}
    for part, index in indexes.items():
        parts[part] = ShardImages(index, reading_of(options, place, shards[part], []))
    return OpenedSet(parts, class_names, None, Skipped(getattr(options, "tolerated_errors", 0)))


def _scanned(place: ShardPlace, shards: dict[str, LitdataShards], files: dict[str, list[ShardFile]]) -> Scanned:
    labels: dict[str, list[int | str]] = {}
    chunks: dict[str, list[int]] = {}
    for part, held in shards.items():
        listed = json.loads(place.path(files[part][0]).read_bytes())["chunks"]
        chunks[part] = [int(chunk["chunk_size"]) for chunk in listed]
        labels[part] = []
        for number in range(sum(chunks[part])):
            try:
                labels[part].append(label_of(held.samples[number]))
            except ValueError as error:
                raise ValueError(f"data: shards={place}: {part} sample {number}: {error}") from error
    every = {label for found in labels.values() for label in found}
    if len({type(label) for label in every}) > 1:
        raise ValueError(f"data: shards={place}: labels that are numbers in some samples and words in others")
    words = sorted(map(str, every)) if any(isinstance(label, str) for label in every) else []
    names = words or [str(number) for number in range(max((int(label) for label in every), default=0) + 1)]
    numbers = {word: number for number, word in enumerate(names)}
    indexes = {}
    for part, found in labels.items():
        count = len(found)
        indexes[part] = ShardIndex(
            np.repeat(np.arange(len(chunks[part]), dtype=np.int32), chunks[part]),
            np.arange(count, dtype=np.int64),
            np.zeros(count, np.int64),
            packed_rows(f"{part} sample {number}".encode() for number in range(count)),
            labels=np.array([numbers[str(label)] for label in found], np.int64),
        )
    return indexes, names, []
