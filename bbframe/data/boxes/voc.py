"""Images with boxes in Pascal VOC's XML, one file an image: every fault is told at once, before training."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from bbframe.data.boxes.annotated import AnnotatedDataModule
from bbframe.data.boxes.annotated_files import Reading
from bbframe.data.boxes.box_options import VocOptions
from bbframe.data.boxes.voc_documents import Documents, annotation_folder, has_lists, voc_folder
from bbframe.data.boxes.voc_pages import Page


class Voc(AnnotatedDataModule):
    """Classes are the names that the training images' objects bear, in alphabetical order.

    A `difficult` object is a region that an evaluation ignores and that training does not see.
    """

    def __init__(self, options: VocOptions, *, masks: bool = False, **settings: Any):
        if masks:
            raise ValueError("data: voc has no masks; choose a head without, or data=coco")
        root, assumed = voc_folder(Path(options.root or ""))
        sets = {
            part: name for part in ("train", "val", "test") if (name := getattr(options, f"{part}_set")) is not None
        }
        if not has_lists(root) and annotation_folder(root) is not None:
            # no lists: all annotations train, and give the other parts a fraction; or a folder for each part
            sets = {part: name for part, name in sets.items() if part == "train" or (root / name).is_dir()}
        documents = {part: Documents(root, part, name) for part, name in sets.items()}
        documents["train"].assumed += assumed
        counting = _counting(page for found in documents.values() for page in found.pages.values())
        names = {found.name for page in documents["train"].pages.values() for found in page.objects if found.name}
        readings = {
            part: functools.partial(read_voc, found, options, sorted(names), counting)
            for part, found in documents.items()
        }
        super().__init__(options, readings, masks=False, **settings)


class Counting(NamedTuple):
    """How boxes count pixels: what is taken off xmin and ymin and added to xmax and ymax, and how that is called."""

    first: int = 1  # Pascal VOC's way: from 1, and the last pixel is still in the box
    beyond: int = 0
    assumed: str = ""


def _counting(pages: Iterable[Page]) -> Counting:
    """How the boxes of a data set count pixels: from 0 if any begins there."""
    zero, fraction, edge = False, False, False
    for page in pages:
        for x1, y1, x2, y2 in (found.box for found in page.objects if len(found.box) == 4):
            zero = zero or 0 <= min(x1, y1) < 1
            fraction = fraction or any(value % 1 for value in (x1, y1, x2, y2))
            edge = edge or x2 > (page.width or x2 + 1) - 1 or y2 > (page.height or y2 + 1) - 1
    if not zero:
        return Counting()
    if fraction or edge:
        return Counting(0, 0, "boxes that are measured from 0 up to their edges, because some begin at 0")
    return Counting(0, 1, "boxes that count pixels from 0 up to the last one in them, because some begin at 0")


def read_voc(documents: Documents, options: VocOptions, class_names: list[str], counting: Counting) -> Reading:
    """The images and objects of one set, and its faults; without any class names, no class is a fault."""
    reading = Reading(documents.file, documents.images, options, masks=False)
    reading.class_names = class_names
    labels = {name: label for label, name in enumerate(class_names)}
    for why in documents.list:
        reading.faults.fatal(why)
    for what, place in documents.assumed:
        reading.faults.assume(what, place)
    if counting.assumed and documents.pages:
        reading.faults.assume(counting.assumed, f"{len(documents.pages)} annotations")
    for name, why in documents.broken.items():
        reading.faults.drop("unreadable annotations", f"{documents.prefix}{name}.xml", why)
    for name, page in documents.pages.items():
        _page(f"{documents.prefix}{name}.xml", name, page, reading, labels, counting)
    return reading


def _page(title: str, name: str, page: Page, reading: Reading, labels: dict[str, int], counting: Counting) -> None:
    """Take an image and its objects."""
    for what in page.assumed:
        reading.faults.assume(what, title)
    size = (int(page.width), int(page.height)) if min(page.width, page.height) >= 1 else None
    if size is None:
        reading.faults.assume("annotations without the size of their image, which is the file's", title)
    image = reading.image(title, _image_path(title, name, page, reading), size, name)
    for number, (said, box, difficult) in enumerate(page.objects, 1):
        thing = f"object {number} of {title}"
        if said is None:
            reading.faults.drop("objects without a name", thing)
        elif labels and said not in labels:
            reading.faults.drop("classes that no training image has", thing, said)
        elif len(box) < 4:
            reading.faults.drop("malformed boxes", thing, "must have xmin, ymin, xmax and ymax")
        elif image is not None:
            first, beyond, _ = counting
            corners = [box[0] - first, box[1] - first, box[2] + beyond, box[3] + beyond]
            if (inside := reading.box(thing, image, corners)) is not None:
                area = (inside[2] - inside[0]) * (inside[3] - inside[1])
                reading.add(image, inside, labels.get(said, 0), difficult, area)


def _image_path(title: str, name: str, page: Page, reading: Reading) -> str:
    """Where a page's image should be: as it says, or as the page itself is called, in the same folders."""
    if ".." in page.path:
        return page.path
    said = re.split(r"[/\\]", page.path)[-1]
    folder, stem = os.path.split(name)
    for path in (said, os.path.join(folder, said)):
        if said and (reading.root / path).is_file():
            return path
    if said and stem not in (said, os.path.splitext(said)[0]):
        what = "annotations that name another image, taken for that of their own name"
        reading.faults.assume(what, title)
    suffix = "" if said == stem else os.path.splitext(said)[1]
    return os.path.join(folder if (reading.root / folder).is_dir() else "", f"{stem}{suffix or '.jpg'}")
