"""Image files and the objects in them, however they are written down; and the parts that they are divided into."""

from __future__ import annotations

import functools
import os
import re
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bbframe.data.boxes.box_data import DetectionDataModule
from bbframe.data.boxes.box_options import FileDetectionOptions
from bbframe.data.boxes.objects import Objects
from bbframe.data.decode import SUFFIXES, Decoding, glance, read_image, reason, significant_bits
from bbframe.data.faults import Faults, Skipped, raise_all
from bbframe.data.split import stratified

MASK_BYTES = 2**34  # that the masks of one image may take
TOLERANCE = 1.0  # pixels by which rounding may carry a box or a polygon over the border


@dataclass
class AnnotatedFiles(Objects):
    """Image files, their paths relative to `root`, and their objects; `masks` are COCO's run lengths, if taken.

    `ids` are what the annotations call the images.
    """

    root: Path
    paths: list[str]
    ids: list[int | str]
    masks: list[bytes] | None
    decoding: Decoding = Decoding()

    def read(self, index: int) -> Image.Image:
        height, width = self.sizes[index].tolist()
        image = read_image(self.root / self.paths[index], self.decoding, (width, height))
        if image.size != (width, height):
            raise ValueError(f"is {image.width}x{image.height}, but its annotations say {width}x{height}")
        return image

    def name(self, index: int) -> str:
        return str(self.root / self.paths[index])

    def draw(self, number: int, mask: np.ndarray) -> None:
        from faster_coco_eval.core.mask import decode

        assert self.masks is not None
        mask[:] = decode({"size": list(mask.shape), "counts": self.masks[number]})

    def select(self, indices: Sequence[int]) -> AnnotatedFiles:
        """Some of the images."""
        rows = [np.arange(self.offsets[i], self.offsets[i + 1]) for i in indices]
        kept = np.concatenate([np.zeros(0, np.int64), *rows])
        objects = {key: getattr(self, key)[kept] for key in ("boxes", "classes", "crowd", "area")}
        return replace(
            self,
            sizes=self.sizes[list(indices)],
            offsets=np.cumsum([0, *(len(row) for row in rows)]),
            paths=[self.paths[i] for i in indices],
            ids=[self.ids[i] for i in indices],
            masks=None if self.masks is None else [self.masks[i] for i in kept],
            **objects,
        )


class Reading:
    """Images and objects as they are read from one source, and the faults found on the way."""

    def __init__(self, source: object, root: Path, options: FileDetectionOptions, masks: bool):
        self.root, self.verify, self.decoding = root, options.verify, Decoding.of(options)
        self.faults = Faults(source, options.on_error == "skip")
        self.class_names: list[str] = []
        self.category_ids: list[int] = []
        self.paths: list[str] = []
        self.ids: list[int | str] = []
        self.sizes: list[tuple[int, int]] = []
        self.table = array("d")  # image, x1, y1, x2, y2, class, crowd, area of each object
        self.masks: list[bytes] | None = [] if masks else None
        self.peaks: list[int] = []  # the largest value of each 16-bit image
        self.turned: dict[str, list[str]] = {"apply": [], "ignore": [], "unclear": []}  # images, by their EXIF

    def image(self, name: str, path: str, said: tuple[int, int] | None, image_id: int | str) -> int | None:
        """Take an image of the (width, height) that is `said`, or of its own; returns its index.

        None when it cannot serve.
        """
        if os.path.isabs(path) or ".." in re.split(r"[/\\]", path) or re.match(r"[/\\]|\w:", path):
            self.faults.fatal("paths that leave the folder of the images", f"{name} ({path!r})")
            return None
        found = self._located(path)
        if found != path:
            self.faults.assume("images found under another spelling of their name", f"{name} ({found})")
        if (self.verify or said is None) and (said := self._looked_at(name, found, said)) is None:
            return None
        assert said is not None
        if said[0] * said[1] > self.decoding.max_pixels:
            why = f"{said[0]}x{said[1]} pixels"
            self.faults.drop(f"images of more than data.max_pixels={self.decoding.max_pixels}", name, why)
            return None
        self.paths.append(found)
        self.ids.append(image_id)
        self.sizes.append((said[1], said[0]))
        return len(self.paths) - 1

    def _located(self, path: str) -> str:
        """The file that a path means: as it is, with slashes, without folders, or with another suffix."""
        plain = path.replace("\\", "/")
        for tried in (path, plain, plain.rsplit("/", 1)[-1]):
            if os.path.isfile(self.root / tried) if "\0" not in tried else False:
                return tried
        name = plain.rsplit("/", 1)[-1].lower()
        return self._files_by_name.get(name) or self._files_by_name.get(os.path.splitext(name)[0]) or plain

    @functools.cached_property
    def _files_by_name(self) -> dict[str, str]:
        """The images in the folder by their names and, where that is unique, by their stems, in small letters."""
        found: dict[str, str] = {}
        twice = set()
        for name in sorted(os.listdir(self.root)) if self.root.is_dir() else []:
            stem, suffix = os.path.splitext(name.lower())
            if suffix in SUFFIXES:
                twice |= {key for key in (stem, name.lower()) if key in found}
                found |= {stem: name, name.lower(): name}
        return {key: name for key, name in found.items() if key not in twice}

    def _looked_at(self, name: str, path: str, said: tuple[int, int] | None) -> tuple[int, int] | None:
        """The (width, height) of an image file, as its annotations see it; None when it cannot serve."""
        place = self.root / path
        try:
            facts = glance(place, self.decoding)
        except Exception as error:  # a decoder may raise anything on a broken file
            self.faults.drop("unreadable images", f"{name}, {place}", reason(error))
            return None
        self.peaks += [] if facts.peak is None else [facts.peak]
        for what in facts.assumed if facts.peak is None else ():
            self.faults.assume(what, str(place))
        exif = self.decoding.exif
        fitting = facts.stored if exif == "ignore" or (exif is None and said == facts.stored) else facts.size
        if said is not None and said != fitting:
            why = f"{fitting[0]}x{fitting[1]}, not {said[0]}x{said[1]}"
            self.faults.drop("images of another size than is said", f"{name}, {place}", why)
            return None
        if facts.turned and exif is None:
            clear = facts.stored != facts.size and said is not None
            self.turned["unclear" if not clear else "ignore" if said == facts.stored else "apply"].append(path)
        return fitting

    def settle_exif(self) -> None:
        """Say how images that EXIF turns are read; those whose size does not tell follow the others."""
        unclear, count = self.turned["unclear"], len(self.turned["ignore"])
        self.decoding = replace(self.decoding, as_stored=count > len(self.turned["apply"]))
        way = "ignored, as for the others" if self.decoding.as_stored else "applied"
        for path in unclear:
            what = f"turned images whose width and height do not tell if EXIF counts: it is {way} (data.exif=...)"
            self.faults.assume(what, path)
        for path in self.turned["ignore"]:
            self.faults.assume("images whose width and height are those without EXIF, which is ignored", path)

    def box(self, name: str, image: int, box: Sequence[float]) -> list[float] | None:
        """The part of a box (x1, y1, x2, y2) that is within its image, or None when there is none."""
        height, width = self.sizes[image]
        x1, y1, x2, y2 = box
        shown = ", ".join(f"{value:g}" for value in box)
        over = max(-x1, -y1, x2 - width, y2 - height) > TOLERANCE
        x1, y1, x2, y2 = np.array([max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)], np.float32).tolist()
        if x2 <= x1 or y2 <= y1:
            what = "boxes outside their image" if over and box[2] > box[0] and box[3] > box[1] else None
            why = f"x1, y1, x2, y2 = {shown}" + (f" in {width}x{height}" if what else "")
            self.faults.drop(what or "boxes without an area", name, why)
            return None
        if over:
            self.faults.assume("boxes that stick out of their image, which are clipped", name)
        return [x1, y1, x2, y2]

    def add(
        self, image: int, box: Sequence[float], label: int, crowd: bool, area: float, mask: bytes | None = None
    ) -> None:
        """Take an object, with its mask where masks are read."""
        self.table.extend([image, *box, label, crowd, area])
        if self.masks is not None and mask is not None:
            self.masks.append(mask)

    def finish(self) -> AnnotatedFiles:
        """What was taken, image by image."""
        if not self.paths:
            self.faults.fatal("no images that can serve")
        elif not len(self.table):
            self.faults.fatal("no annotations that can serve")
        table = np.array(self.table).reshape(-1, 8)
        if self.masks is not None:
            for index, count in enumerate(np.bincount(table[:, 0].astype(np.int64), minlength=len(self.paths))):
                if count * self.sizes[index][0] * self.sizes[index][1] > MASK_BYTES:
                    what = f"images whose masks would take more than {MASK_BYTES >> 30} GiB"
                    self.faults.fatal(what, f"{self.paths[index]} ({count} masks)")
        order = np.argsort(table[:, 0], kind="stable")
        table = table[order]
        return AnnotatedFiles(
            sizes=np.array(self.sizes, np.int64).reshape(-1, 2),
            offsets=np.searchsorted(table[:, 0], np.arange(len(self.paths) + 1)),
            boxes=table[:, 1:5].astype(np.float32),
            classes=table[:, 5].astype(np.int64),
            crowd=table[:, 6] > 0,
            area=table[:, 7].astype(np.float32),
            root=self.root,
            paths=self.paths,
            ids=self.ids,
            masks=None if self.masks is None else [self.masks[i] for i in order],
            decoding=self.decoding,
        )


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
        told = [(reading.faults, f"{reading.faults.source}: ") for reading in read.values()]
        skipped.assume((what, f"{source}{name}") for faults, source in told for what, name in faults.assumed)
        skipped.note(
            [
                (f"{source}{name}", f"{kind}, {why}" if why else kind)
                for faults, source in told
                for kind, name, why in faults.dropped
            ]
        )
        super().__init__(options, _divide(found, options), read["train"].class_names, skipped=skipped, **settings)
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
