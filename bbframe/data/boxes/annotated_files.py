"""Image files and the objects in them as they are read, however they are written down."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from bbframe.data.boxes.box_options import FileDetectionOptions
from bbframe.data.boxes.image_paths import ImagePaths
from bbframe.data.boxes.objects import Objects
from bbframe.data.exclusion import read_exclusion
from bbframe.data.faults import Faults
from bbframe.imaging.decode import AS_USUAL, Decoding, glance, read_image, reason

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
    decoding: Decoding = AS_USUAL

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
        kept, fields = self.chosen(indices)
        return replace(
            self,
            paths=[self.paths[i] for i in indices],
            ids=[self.ids[i] for i in indices],
            masks=None if self.masks is None else [self.masks[i] for i in kept],
            **fields,  # type: ignore[arg-type]
        )


class Reading:
    """Images and objects as they are read from one source, and the faults found on the way."""

    def __init__(self, source: object, root: Path, options: FileDetectionOptions, masks: bool):
        self.root, self.verify, self.decoding = root, options.verify, Decoding.of(options)
        self.exclusion = read_exclusion(options.exclude)
        self.files = ImagePaths(root)
        self.faults = Faults(source, options.on_error == "skip")
        self.class_names: list[str] = []
        self.category_ids: list[int] = []
        self.paths: list[str] = []
        self.taken: set[str] = set()  # the paths of images that can serve or not
        self.ids: list[int | str] = []
        self.sizes: list[tuple[int, int]] = []
        self.table = array("d")  # image, x1, y1, x2, y2, class, crowd, area of each object
        self.farthest = 0.0  # the largest coordinate of a box
        self.masks: list[bytes] | None = [] if masks else None
        self.peaks: list[int] = []  # the largest value of each 16-bit image
        self.turned: dict[str, list[str]] = {"apply": [], "ignore": [], "unclear": []}  # images, by their EXIF

    def image(self, name: str, path: str, said: tuple[int, int] | None, image_id: int | str) -> int | None:
        """Take an image of the (width, height) that is `said`, or of its own; returns its index.

        None when it cannot serve.
        """
        found, assumed, absent, leaves = self.files.find(path)
        if absent and self.exclusion.names(found, self.root):
            self.exclusion.drop(found, self.root)
            return None
        if absent and leaves:
            self.faults.fatal("paths that leave the folder of the images", f"{name} ({path!r})")
            return None
        if absent:
            self.faults.drop("absent images", f"{name}, {self.root / found}", absent)
            return None
        if found in self.taken:
            self.faults.drop("duplicate file names", name, found)
            return None
        self.taken.add(found)
        if assumed:
            self.faults.assume(assumed, f"{name} ({found})")
        left_out = self.exclusion.names(found, self.root)
        if ((self.verify and not left_out) or said is None) and (said := self._looked_at(name, found, said)) is None:
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

    def _looked_at(self, name: str, path: str, said: tuple[int, int] | None) -> tuple[int, int] | None:
        """The (width, height) of an image file, as its annotations see it; None when it cannot serve."""
        place = self.root / path
        try:
            facts = glance(place, self.decoding)
        except Exception as error:  # a decoder may raise anything on a broken file
            if self.exclusion.names(path, self.root):
                self.exclusion.drop(path, self.root)
                return None
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
        self.farthest = max(self.farthest, x2, y2)
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
        elif self.farthest <= 1 and max(map(max, self.sizes)) > 2:
            what = "its boxes are all within 0..1, which looks normalised; multiply them by width and height"
            self.faults.fatal(what)
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
