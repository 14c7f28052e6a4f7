"""Data sets of annotated image files, and the parts that they are divided into."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from bbframe.data.boxes.annotated_files import AnnotatedFiles, Reading
from bbframe.data.boxes.box_data import DetectionDataModule
from bbframe.data.boxes.box_options import FileDetectionOptions
from bbframe.data.exclusion import read_exclusion
from bbframe.data.faults import Skipped, raise_all
from bbframe.data.split import stratified
from bbframe.imaging.deep_pixels import significant_bits


class AnnotatedDataModule(DetectionDataModule):
    """A data set of annotated image files. A part that is not given is a seeded share of the training images."""

    parts: dict[str, AnnotatedFiles]  # type: ignore[assignment]

    def __init__(self, options: FileDetectionOptions, readings: Mapping[str, Callable[[], Reading]], **settings: Any):
        """`readings` read the given parts; `settings` are those of `make_data`."""
        read = {part: reading() for part, reading in readings.items()}
        _compare(read)
        peaks = [peak for reading in read.values() for peak in reading.peaks]
        if peaks and options.bits is None:
            options = replace(options, bits=significant_bits(max(peaks)))
            what = f"sets of 16-bit images read as {options.bits} bits (data.bits), whose largest value is"
            read["train"].faults.assume(what, str(max(peaks)))
        for reading in read.values():
            reading.decoding = replace(reading.decoding, bits=options.bits)
            reading.settle_exif()
        found = {part: reading.finish() for part, reading in read.items() if not reading.faults.kinds}
        raise_all(reading.faults for reading in read.values())
        skipped = Skipped(options.tolerated_errors, "faulty images and annotations")
        sources = [(reading.faults, f"{reading.faults.source}: ") for reading in read.values()]
        skipped.assume((what, f"{source}{name}") for faults, source in sources for what, name in faults.assumed)
        skipped.note(
            [
                (f"{source}{name}", f"{kind}, {why}" if why else kind)
                for faults, source in sources
                for kind, name, why in faults.dropped
            ]
        )
        exclusion = read_exclusion(options.exclude)
        exclusion.dropped = set().union(*(reading.exclusion.dropped for reading in read.values()))
        told: dict[str, Any] = {"skipped": skipped, "exclusion": exclusion}
        super().__init__(options, _divide(found, options), read["train"].class_names, **told, **settings)
        self.category_ids = read["train"].category_ids or self.category_ids
        self._part_ids = {part: reading.category_ids for part, reading in read.items() if reading.category_ids}

    def image_id(self, part: str, index: int) -> int | str:
        return self.parts[part].ids[index]

    def part_category_ids(self, part: str) -> list[int]:
        return self._part_ids.get(part, self.category_ids)


def _compare(read: dict[str, Reading]) -> None:
    """Give the other parts the classes of train, by their names; they must have other images."""
    train = read["train"]
    taken = dict.fromkeys(_image_paths(train), "train")
    for part, reading in list(read.items())[1:]:
        if reading.class_names and train.class_names and reading.category_ids:
            _match_classes(reading, train)
        for path in _image_paths(reading):
            other = taken.setdefault(path, part)
            if other != part:
                reading.faults.fatal(f"{part} images that are {other} images too", path)


def _match_classes(reading: Reading, train: Reading) -> None:
    """Number the classes of a part as in train; `category_ids` become what the part calls those of train."""
    ids = dict(zip(reading.class_names, reading.category_ids, strict=True))
    numbers = {name: number for number, name in enumerate(train.class_names)}
    table = np.array(reading.table).reshape(-1, 8)
    places = np.array([numbers.get(name, -1) for name in reading.class_names])
    counts = np.bincount(table[:, 5].astype(np.int64), minlength=len(places))
    for name, place, count in zip(reading.class_names, places, counts, strict=True):
        if place < 0 and count and reading.faults.skip:
            reading.faults.drop("categories that train lacks", name, f"{count} objects")
        elif place < 0 and count:
            reading.faults.fatal("categories that train lacks", name)
        elif place < 0:
            reading.faults.assume("categories without objects that train lacks", name)
        elif ids[name] != train.category_ids[place]:
            reading.faults.assume("categories with another id than in train, matched by name", name)
    for name in numbers:
        if name not in ids:
            reading.faults.assume("lacking categories of train", name)
    table[:, 5] = places[table[:, 5].astype(np.int64)]
    kept = table[:, 5] >= 0
    reading.table = array("d", table[kept].ravel())
    if reading.masks is not None:
        reading.masks = [mask for mask, keep in zip(reading.masks, kept, strict=True) if keep]
    free = max(*ids.values(), *train.category_ids) + 1
    reading.category_ids = [ids.get(name, free + number) for name, number in numbers.items()]
    reading.class_names = train.class_names


def _image_paths(reading: Reading) -> list[str]:
    """Where the images lie, one spelling for each place."""
    root = os.path.realpath(reading.root)
    return [os.path.normpath(os.path.join(root, path)) for path in reading.paths]


def _divide(found: dict[str, AnnotatedFiles], options: FileDetectionOptions) -> dict[str, AnnotatedFiles]:
    """Take the parts that are not given out of train, images with and without objects in proportion.

    Raises ValueError when there are too few images, and for a part in which no object counts.
    """
    fractions = options.fractions(found, test=0.0 if len(found) > 1 else 0.15)
    train = found["train"]
    count = len(train.paths)
    if count <= len(fractions):
        noun = "image is" if count == 1 else "images are"
        ways = [f"data.{part}_{options.given_by}=..." for part in fractions]
        ways += ["data.test_fraction=0"] if "test" in fractions else []
        parts = ", ".join(("train", *fractions))
        raise ValueError(f"data: {count} {noun} too few to split into {parts}; add some, or set {' or '.join(ways)}")
    shows = _shows(train)
    if shows.sum() <= len(fractions):  # chance decides where they go
        shows[:] = True
    few = (~shows).sum() <= len(fractions)  # images without objects, then for training
    chosen = np.flatnonzero(shows) if few else np.arange(count)
    split = stratified([train.paths[i] for i in chosen], shows[chosen].tolist(), fractions, options.split_seed)
    taken = {part: chosen[split[part]].tolist() for part in fractions}
    rest = sorted(set(range(count)).difference(*taken.values()))
    parted = {**found, "train": train.select(rest)}
    parted |= {part: train.select(indices) for part, indices in taken.items()}
    for part, images in parted.items():
        if not _shows(images).any():
            key, number = f"data.{part}_{options.given_by}", len(images.paths)
            fix = f"change data.{part}_fraction or data.split_seed, or set {key}=..."
            fix = f"name others by {key}" if part in found else fix
            raise ValueError(f"data: {number} {part} image{'s' * (number != 1)} without any object that counts; {fix}")
    return parted


def _shows(images: AnnotatedFiles) -> np.ndarray:
    """Whether each image shows an object that counts, one that is no crowd: (images,) bool."""
    seen = np.concatenate([[0], np.cumsum(~images.crowd)])
    return seen[images.offsets[1:]] > seen[images.offsets[:-1]]
