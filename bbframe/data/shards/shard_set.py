"""Open a set of shards: its parts, ready to be read, or all that is wrong with it in one line."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bbframe.data.faults import Faults, Skipped, raise_all
from bbframe.data.loading_options import LoadingOptions
from bbframe.data.shards.litdata_shards import LitdataShards
from bbframe.data.shards.set_file import SET_FILE, UNFINISHED, PartEntry, SetFile
from bbframe.data.shards.shard_cache import bytes_of, default_cache
from bbframe.data.shards.shard_images import ShardImages, ShardObjects, ShardReading
from bbframe.data.shards.shard_index import ShardIndex
from bbframe.data.shards.shard_places import NearPlace, ShardFile, ShardPlace, shard_place
from bbframe.data.shards.tar_shards import TarShards
from bbframe.imaging.decode import Decoding

FAR_WINDOW = 8  # shards that are mixed where a URL is read

Parts = dict[str, ShardImages | ShardObjects]


@dataclass
class OpenedSet:
    """What a data module is made of; `ids` are what the annotations of each part call the classes."""

    parts: Parts
    class_names: list[str]
    bits: int | None
    skipped: Skipped
    masks: bool = False
    category_ids: list[int] | None = None
    part_ids: dict[str, list[int]] = field(default_factory=dict)


def open_set(options: LoadingOptions) -> OpenedSet:
    """The set that `options.shards` names. Raises ValueError when it cannot serve these options."""
    place, names = shard_place(options)
    if not place.far and place.path(ShardFile(UNFINISHED)).is_file():
        raise ValueError(
            f"data: shards={place} is the beginning of a set of shards; `bbframe data shard` completes it"
        )
    if names is None and _has_set_file(place):
        return _open_own(options, place)
    from bbframe.data.shards.foreign_shards import open_foreign

    return open_foreign(options, place, names)


def _has_set_file(place: ShardPlace) -> bool:
    if not place.far:
        return place.path(ShardFile(SET_FILE)).is_file()
    if not str(place).startswith("s3://"):
        return True
    try:  # litdata reads chunks of other programs there too
        place.path(ShardFile(SET_FILE, fresh=True))
    except ValueError:
        try:
            place.path(ShardFile("index.json", fresh=True))
        except ValueError:
            return True  # whoever opens it says what is wrong
        return False
    return True


def _open_own(options: LoadingOptions, place: ShardPlace) -> OpenedSet:
    try:
        about = SetFile.from_bytes(place.path(ShardFile(SET_FILE, fresh=True)).read_bytes())
    except (OSError, ValueError) as error:
        hint = "; tars of other programs are given as a pattern, such as .../train-{000..127}.tar" if place.far else ""
        raise ValueError(f"data: shards={place}: {SET_FILE}: {_reason(error)}{hint}") from error
    if about.task != options.task:
        raise ValueError(
            f"data: shards={place} holds {about.kind}, for task={about.task}, and data={options.name} is for "
            f"task={options.task}; type data={about.kind}"
        )
    faults = Faults(place, getattr(options, "on_error", "raise") == "skip")
    parts: Parts = {}
    for part, entry in about.part_entries().items():
        if (found := _open_part(options, place, about, part, entry, faults)) is not None:
            parts[part] = found
    raise_all([faults])
    skipped = Skipped(getattr(options, "tolerated_errors", 0))
    for what, names in about.assumed.items():
        skipped.assume((what, str(name)) for name in names)
    skipped.note([(name, f"{kind}, {why}" if why else kind) for kind, name, why in faults.dropped])
    ids = {part: entry.category_ids for part, entry in about.part_entries().items()}
    return OpenedSet(
        parts,
        list(about.class_names),
        about.bits,
        skipped,
        about.masks,
        None if about.category_ids is None else list(about.category_ids),
        {part: list(found) for part, found in ids.items() if found is not None},
    )


def _open_part(
    options: LoadingOptions, place: ShardPlace, about: SetFile, part: str, entry: PartEntry, faults: Faults
) -> ShardImages | ShardObjects | None:
    file, listed = entry.entries()
    files = [one.shard() for one in listed]
    try:
        content = place.path(file.shard()).read_bytes()
        if len(content) != file.bytes:
            raise ValueError(f"has {len(content)} bytes, not the {file.bytes} that {SET_FILE} says")
        index = ShardIndex.from_bytes(content, len(files), len(about.class_names))
        if (index.labels is None) == (about.task == "classification"):
            raise ValueError(f"is not of the task {about.task}")
    except (OSError, ValueError) as error:
        faults.fatal(f"{file.file} {_reason(error)}")
        return None
    held: ShardPlace = place
    if about.format == "litdata":
        cache = Path(options.shard_cache).expanduser() if options.shard_cache else default_cache()
        shards: Any = LitdataShards(f"{place}/{part}", cache, bytes_of(options.shard_cache_size))
        held = NearPlace(place.root / part) if isinstance(place, NearPlace) else place
    else:
        shards = TarShards(place, files, about.id)
    reading = reading_of(options, place, shards, files)
    reading.decoding = replace(Decoding.of(options), as_stored=entry.as_stored)
    if about.bits is not None and reading.decoding.bits is None:
        reading.decoding = replace(reading.decoding, bits=about.bits)
    images = ShardImages(index, reading) if about.task == "classification" else ShardObjects.of(index, reading)
    return images if place.far else without_lost(images, held, files, faults)


def reading_of(options: LoadingOptions, place: ShardPlace, shards: Any, files: Sequence[ShardFile]) -> ShardReading:
    """How shards are read by the options. Raises ValueError when the cache cannot hold two windows of them."""
    window = options.shard_window or (FAR_WINDOW if place.far else None)
    known = [file.bytes for file in files if file.bytes is not None]
    if place.far and window is not None and known:
        needed = min(sum(known), 2 * window * max(known))
        if bytes_of(options.shard_cache_size) < needed:
            raise ValueError(
                f"data: shard_cache_size={options.shard_cache_size} is too small to read shard_window={window} shards "
                f"and to fetch as many ahead, of up to {max(known) / 10**6:.0f} MB each; set it to "
                f"{-(-needed // 10**6)}MB, or lower data.shard_window"
            )
    return ShardReading(shards, window, place.far, Decoding.of(options))


def without_lost(
    images: ShardImages | ShardObjects, place: ShardPlace, files: Sequence[ShardFile], faults: Faults
) -> ShardImages | ShardObjects:
    """The images of tars that are there and whole; the others are faults."""
    there = np.zeros(len(files), np.int64)
    for number, file in enumerate(files):
        try:
            there[number] = os.stat(place.path(file)).st_size
        except OSError as error:
            why = _reason(error)
        else:
            if file.bytes is None or there[number] == file.bytes:
                there[number] = 2**62
                continue
            why = f"has {there[number]} bytes, not {file.bytes}"
        if not faults.skip:
            faults.fatal("tars that are absent or not whole", f"{file.name}, {file.images} images", why)
    index = images.index
    lost = np.flatnonzero(index.offset + index.size > there[index.shard])
    if not faults.skip or not len(lost):
        return images
    for number in lost.tolist():
        what = f"{files[index.shard[number]].name} is absent or cut off"
        faults.drop("images of tars that are absent or not whole", images.name(number), what)
    return images.select(np.setdiff1d(np.arange(len(index)), lost))


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"cannot be read: {(error.strerror or str(error)).lower()}"
    return str(error)
