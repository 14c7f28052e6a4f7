"""What a data set tells without a network and without decoding it: counts, imbalance, copies, leaks, sizes, boxes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bbframe.data.batch_loader import Images
from bbframe.data.boxes.box_options import DetectionDataOptions
from bbframe.data.boxes.box_sizes import below_stride, box_sides, buckets
from bbframe.data.boxes.objects import Objects, flat_labels
from bbframe.data.copies import NotLooked, Place, copy_groups, image_file
from bbframe.data.data_module import DataModule
from bbframe.data.exclusion import image_name
from bbframe.data.faults import first_few
from bbframe.data.fixes_file import PARTS
from bbframe.files import visible
from bbframe.imaging.image_files import MAX_PIXELS, open_image

HEADERS = 256  # files whose size is read, spread over a data set


@dataclass(frozen=True)
class DataSummary:
    """Counts of a data set. `per_class` are the images, or in detection the objects, of each class, in each part.

    `copies` are the groups of equal images, None where nobody looked, which `not_looked` explains. `sizes` (n, 2) are
    widths and heights of the images whose size was at hand, or of some of them. `boxes` are, for each part, how many
    objects COCO calls small, medium and large, and how many are below the `stride` of the finest map.
    """

    class_names: list[str]
    images: dict[str, int]
    per_class: dict[str, list[int]]
    noun: str
    sizes: np.ndarray
    copies: list[list[Place]] | None
    not_looked: str = ""
    names: dict[Place, str] = field(default_factory=dict)
    conflicts: int = 0
    boxes: dict[str, dict[str, int]] = field(default_factory=dict)
    stride: int | None = None

    @property
    def imbalance(self) -> float | None:
        """How many times as much the largest class of train has as the smallest that has any; None without any."""
        counts = [count for count in self.per_class.get("train", []) if count]
        return max(counts) / min(counts) if counts else None

    @property
    def missing(self) -> dict[str, list[str]]:
        """The classes that a part lacks, for each part that lacks any."""
        lacking = {
            part: [name for name, count in zip(self.class_names, counts, strict=True) if not count]
            for part, counts in self.per_class.items()
        }
        return {part: names for part, names in lacking.items() if names}

    @property
    def copies_within(self) -> dict[str, int]:
        """How many images of each part are there once more than once."""
        counts = Counter(part for group in self.copies or () for part in _surplus(group))
        return dict(counts)

    @property
    def leaks(self) -> dict[str, int]:
        """How many images of the first of two parts are in the second too: {"train/test": 10}."""
        counts: Counter[str] = Counter()
        for group in self.copies or ():
            inside = Counter(part for part, _ in group)
            here = [part for part in PARTS if part in inside]
            for place, one in enumerate(here):
                counts.update({f"{one}/{other}": inside[one] for other in here[place + 1 :]})
        return dict(counts)

    def counts(self) -> dict[str, Any]:
        """The small numbers that a run keeps."""
        ratio = self.imbalance
        found: dict[str, Any] = {
            "images": dict(self.images),
            "classes": len(self.class_names),
            "imbalance": None if ratio is None else round(ratio, 3),
            "missing_classes": {part: len(names) for part, names in self.missing.items()},
            "copies": None if self.copies is None else self.copies_within,
            "leaks": None if self.copies is None else self.leaks,
            "conflicts": None if self.copies is None else self.conflicts,
        }
        if self.boxes:
            found |= {"boxes": self.boxes, "stride": self.stride}
        return found

    def lines(self) -> list[tuple[str, str]]:
        """What the log of a run says: (word, text) of each line."""
        said = [("classes", text) for text in self._class_texts()]
        if len(self.sizes):
            said.append(("pictures", self._sizes_text()))
        said.append(("copies", self._copies_text()))
        if "train" in self.boxes:
            said.append(("boxes", self._boxes_text()))
        return said

    def _class_texts(self) -> list[str]:
        counts = [count for count in self.per_class.get("train", []) if count]
        texts = []
        if counts:
            few, many = min(counts), max(counts)
            each = f"{few:,}" if few == many else f"{few:,} to {many:,}"
            texts.append(f"train has {each} {self.noun} a class; the largest is {many / few:.1f} times the smallest")
        for part, names in self.missing.items():
            texts.append(f"{part} has none of {len(names)} classes: {first_few(names)}")
        return texts

    def _sizes_text(self) -> str:
        areas = self.sizes.prod(1)
        low, high = self.sizes[areas.argmin()], self.sizes[areas.argmax()]
        if (self.sizes == low).all():
            return f"{low[0]}x{low[1]} pixels before they are resized"
        middle = np.median(self.sizes, 0).round().astype(int)
        some = "" if len(self.sizes) == sum(self.images.values()) else f", of {len(self.sizes)} looked at"
        return f"{low[0]}x{low[1]} to {high[0]}x{high[1]} pixels{some}; a usual one has {middle[0]}x{middle[1]}"

    def _copies_text(self) -> str:
        if self.copies is None:
            return f"were not looked for: {self.not_looked}; `bbframe data` with the same arguments looks"
        within, leaks = self.copies_within, self.leaks
        said = [f"{count:,} {part} images are another {part} image again" for part, count in within.items()]
        for pair, count in leaks.items():
            one, other = pair.split("/")
            said.append(f"LEAK: {count:,} {one} images are {other} images too")
        if self.conflicts:
            said.append(f"{self.conflicts:,} image{'s' * (self.conflicts > 1)} with copies of another class")
        if not said:
            return "no two images are equal, byte by byte; `bbframe data` compares what they show"
        group = next((group for group in self.copies if group[0][0] != group[-1][0]), self.copies[0])
        example = " = ".join(visible(self.names[place]) for place in (group[0], group[-1]))
        return f"{'; '.join(said)} ({example} ...); `bbframe data ... --out fixes.csv` lists them"

    def _boxes_text(self) -> str:
        found = self.boxes["train"]
        total = max(1, found["boxes"])
        shares = ", ".join(f"{100 * found[name] / total:.0f} % {name}" for name in ("small", "medium", "large"))
        text = f"{found['boxes']:,} in train: {shares} (COCO)"
        if self.stride is None:
            return text
        return f"{text}; {found['below_stride']:,} are smaller than the finest stride, {self.stride}"


def summarise(data: DataModule, stride: int | None = None, groups: list[list[Place]] | None = None) -> DataSummary:
    """Look at a data set; `stride` belongs to the finest map of the network, if there is one.

    `groups` are equal images that were found before; without them it is bounded as `copy_groups` is, and no image file
    is decoded.
    """
    why = ""
    if groups is None:
        try:
            groups = copy_groups(data.parts)
        except NotLooked as reason:
            why = str(reason)
    detection = data.options.task == "detection"
    places = [place for group in groups or () for place in group]
    conflicts = 0
    if not detection:
        labels = [{int(np.ravel(data.parts[part].labels[i])[0]) for part, i in group} for group in groups or ()]
        conflicts = sum(len(found) > 1 for found in labels)
    return DataSummary(
        list(data.class_names),
        dict(data.counts),
        {part: class_histogram(images, data.num_classes) for part, images in data.parts.items()},
        "objects" if detection else "images",
        image_sizes(data),
        groups,
        why,
        {(part, i): image_name(data.parts[part], i) for part, i in places},
        conflicts,
        box_counts(data, stride),
        stride if detection else None,
    )


def class_histogram(images: Images, num_classes: int) -> list[int]:
    """How many images, or objects, of each class a part has."""
    return [int(count) for count in np.bincount(flat_labels(images), minlength=num_classes)]


def box_counts(data: DataModule, stride: int | None) -> dict[str, dict[str, int]]:
    """For each part of a detection data set: its boxes, those in each of COCO's buckets, those below the stride."""
    if not isinstance(data.options, DetectionDataOptions):
        return {}
    found: dict[str, dict[str, int]] = {}
    for part, images in data.parts.items():
        if isinstance(images, Objects):
            sides = box_sides(images)
            found[part] = {"boxes": len(sides), **buckets(sides)}
            if stride is not None:
                found[part]["below_stride"] = int(below_stride(data.options, images, stride).sum())
    return found


def image_sizes(data: DataModule) -> np.ndarray:
    """The (width, height) of the images where they are at hand, else of some by their headers: (n, 2) int64."""
    found: list[np.ndarray] = []
    total = max(1, sum(data.counts.values()))
    for images in data.parts.values():
        count = len(images.labels)
        if isinstance(sizes := getattr(images, "sizes", None), np.ndarray):
            found.append(sizes[:, ::-1])
        elif isinstance(pixels := getattr(images, "pixels", None), np.ndarray) and pixels.ndim >= 3:
            found.append(np.tile([pixels.shape[2], pixels.shape[1]], (count, 1)))
        elif count and image_file(images, 0) is not None:
            chosen = np.unique(np.linspace(0, count - 1, max(1, min(count, HEADERS * count // total))).astype(int))
            found += [np.array([size]) for i in chosen if (size := _header_size(images, int(i))) is not None]
    return np.concatenate([np.zeros((0, 2), np.int64), *found]).astype(np.int64)


def _header_size(images: Images, index: int) -> tuple[int, int] | None:
    path = image_file(images, index)
    assert path is not None
    try:
        with open_image(path, MAX_PIXELS) as image:
            return image.size
    except Exception:  # a decoder may raise anything on a broken file; whoever reads it says so
        return None


def _surplus(group: list[Place]) -> list[str]:
    """The part of each image of a group that is not the first of its part."""
    seen: set[str] = set()
    return [part for part, _ in group if part in seen or seen.add(part)]  # type: ignore[func-returns-value]
