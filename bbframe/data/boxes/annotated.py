"""Image files and the objects in them, however they are written down; and the parts that they are divided into."""

from __future__ import annotations

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
from bbframe.data.decode import glance, read_image, reason
from bbframe.data.faults import Faults, Skipped, raise_all
from bbframe.data.split import stratified

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

    def read(self, index: int) -> Image.Image:
        image = read_image(self.root / self.paths[index])
        height, width = self.sizes[index]
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
        self.root, self.verify = root, options.verify
        self.faults = Faults(source, options.on_error == "skip")
        self.class_names: list[str] = []
        self.category_ids: list[int] = []
        self.paths: list[str] = []
        self.ids: list[int | str] = []
        self.sizes: list[tuple[int, int]] = []
        self.table = array("d")  # image, x1, y1, x2, y2, class, crowd, area of each object
        self.masks: list[bytes] | None = [] if masks else None

    def image(self, name: str, path: str, width: int, height: int, image_id: int | str) -> int | None:
        """Take an image; returns its index, or None when it cannot serve."""
        if os.path.isabs(path) or ".." in re.split(r"[/\\]", path) or re.match(r"[/\\]|\w:", path):
            self.faults.fatal("paths that leave the folder of the images", f"{name} ({path!r})")
            return None
        if self.verify:
            try:
                found = glance(self.root / path)
            except Exception as error:  # a decoder may raise anything on a broken file
                self.faults.drop("unreadable images", f"{name}, {self.root / path}", reason(error))
                return None
            if found != (width, height):
                why = f"{found[0]}x{found[1]}, not {width}x{height}"
                self.faults.drop("images of another size than is said", f"{name}, {self.root / path}", why)
                return None
        self.paths.append(path)
        self.ids.append(image_id)
        self.sizes.append((height, width))
        return len(self.paths) - 1

    def box(self, name: str, image: int, box: Sequence[float]) -> list[float] | None:
        """A box (x1, y1, x2, y2) within its image, or None when it is nowhere."""
        height, width = self.sizes[image]
        x1, y1, x2, y2 = box
        shown = ", ".join(f"{value:g}" for value in box)
        if x1 < -TOLERANCE or y1 < -TOLERANCE or x2 > width + TOLERANCE or y2 > height + TOLERANCE:
            why = f"x1, y1, x2, y2 = {shown} in {width}x{height}"
            self.faults.drop("boxes outside their image", name, why)
            return None
        x1, y1, x2, y2 = np.array([max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)], np.float32).tolist()
        if x2 <= x1 or y2 <= y1:
            self.faults.drop("boxes without an area", name, f"x1, y1, x2, y2 = {shown}")
            return None
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
        )


class AnnotatedDataModule(DetectionDataModule):
    """A data set of annotated image files. A part that is not given is a seeded share of the training images."""

    parts: dict[str, AnnotatedFiles]  # type: ignore[assignment]

    def __init__(self, options: FileDetectionOptions, readings: Mapping[str, Callable[[], Reading]], **settings: Any):
        """`readings` read the given parts; `settings` are those of `make_data`."""
        read = {part: reading() for part, reading in readings.items()}
        found = {part: reading.finish() for part, reading in read.items() if not reading.faults.kinds}
        _compare(read)
        raise_all(reading.faults for reading in read.values())
        skipped = Skipped(options.tolerated_errors, "faulty images and annotations")
        skipped.note(
            [
                (f"{reading.faults.source}: {name}", f"{kind}, {why}" if why else kind)
                for reading in read.values()
                for kind, name, why in reading.faults.dropped
            ]
        )
        super().__init__(options, _divide(found, options), read["train"].class_names, skipped=skipped, **settings)
        self.category_ids = read["train"].category_ids or self.category_ids

    def image_id(self, part: str, index: int) -> int | str:
        return self.parts[part].ids[index]


def _compare(read: dict[str, Reading]) -> None:
    """The other parts must have the classes of train, and other images."""
    train = read["train"]
    taken = dict.fromkeys(_image_paths(train), "train")
    for part, reading in list(read.items())[1:]:
        if reading.class_names and train.class_names and reading.class_names != train.class_names:
            if set(reading.class_names) == set(train.class_names):
                reading.faults.fatal("the categories of train in another order")
            for name in reading.class_names:
                if name not in train.class_names:
                    reading.faults.fatal("categories that train lacks", name)
            for name in train.class_names:
                if name not in reading.class_names:
                    reading.faults.fatal("lacks categories that train has", name)
        for path in _image_paths(reading):
            other = taken.setdefault(path, part)
            if other != part:
                reading.faults.fatal(f"{part} images that are {other} images too", path)


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
