"""Images with boxes in Pascal VOC's XML, one file an image: every fault is told at once, before training."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree  # expat fetches no external entity, and stops those that would grow without end

from bbframe.data.boxes.annotated import AnnotatedDataModule, Reading
from bbframe.data.boxes.box_options import VocOptions


class Voc(AnnotatedDataModule):
    """Classes are the names that the training images' objects bear, in alphabetical order.

    A `difficult` object is a region that an evaluation ignores and that training does not see.
    """

    def __init__(self, options: VocOptions, *, masks: bool = False, **settings: Any):
        if masks:
            raise ValueError("data: voc has no masks; choose a head without, or data=coco")
        root = Path(options.root or "")
        sets = {
            part: name for part in ("train", "val", "test") if (name := getattr(options, f"{part}_set")) is not None
        }
        documents = {part: Documents(root, name) for part, name in sets.items()}
        names = {found.name for page in documents["train"].pages.values() for found in page.objects if found.name}
        readings = {
            part: functools.partial(read_voc, found, options, sorted(names)) for part, found in documents.items()
        }
        super().__init__(options, readings, masks=False, **settings)


class Object(NamedTuple):
    """What an annotation says about an object; `box` holds those of xmin, ymin, xmax and ymax that are numbers."""

    name: str | None
    box: list[float]
    difficult: bool


class Page(NamedTuple):
    """An annotation file: its image's name and sides, and the objects; little of what a parsed file occupies."""

    path: str
    width: float
    height: float
    objects: list[Object]


class Documents:
    """The `pages` of a set by their images' names, the `broken` ones and why, and what is wrong with its `list`."""

    def __init__(self, root: Path, name: str):
        self.root, self.file = root, root / "ImageSets" / "Main" / f"{name}.txt"
        self.pages: dict[str, Page] = {}
        self.broken: dict[str, str] = {}
        self.list: list[str] = []
        try:
            lines = self.file.read_text().split("\n")
        except (OSError, UnicodeDecodeError) as error:
            self.list.append(f"cannot be read: {getattr(error, 'strerror', None) or 'no text'}".lower())
            return
        for stem in dict.fromkeys(line.split()[0] for line in lines if line.strip()):
            if "/" in stem or "\\" in stem:
                self.list.append(f"{stem!r} is no name of an image")
                continue
            try:
                self.pages[stem] = _page(root / "Annotations" / f"{stem}.xml")
            except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:
                self.broken[stem] = (getattr(error, "strerror", None) or str(error)).lower()


def read_voc(documents: Documents, options: VocOptions, class_names: list[str]) -> Reading:
    """The images and objects of one set, and its faults; without any class names, no class is a fault."""
    reading = Reading(documents.file, documents.root / "JPEGImages", options, masks=False)
    reading.class_names = class_names
    for why in documents.list:
        reading.faults.fatal(why)
    for stem, why in documents.broken.items():
        reading.faults.drop("unreadable annotations", f"Annotations/{stem}.xml", why)
    for stem, page in documents.pages.items():
        if min(page.width, page.height) < 1:
            reading.faults.drop("images without a size", f"Annotations/{stem}.xml")
            continue
        path = page.path or f"{stem}.jpg"
        image = reading.image(f"Annotations/{stem}.xml", path, int(page.width), int(page.height), stem)
        for number, (name, box, difficult) in enumerate(page.objects, 1):
            title = f"object {number} of Annotations/{stem}.xml"
            if class_names and name not in class_names:
                reading.faults.drop("classes that no training image has", title, str(name))
            elif len(box) < 4:
                reading.faults.drop("malformed boxes", title, "must have xmin, ymin, xmax and ymax")
            elif image is not None:
                # pixels are counted from 1, and the last one is still in the box
                inside = reading.box(title, image, [box[0] - 1, box[1] - 1, box[2], box[3]])
                if inside is not None:
                    area = (inside[2] - inside[0]) * (inside[3] - inside[1])
                    label = class_names.index(name) if class_names and name else 0
                    reading.add(image, inside, label, difficult, area)
    return reading


def _page(path: Path) -> Page:
    document = ElementTree.parse(path).getroot()
    objects = []
    for found in document.iter("object"):
        sides = [_number_at(found, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
        box = [side for side in sides if side is not None]
        objects.append(Object(found.findtext("name"), box, bool(_number_at(found, "difficult"))))
    width, height = (_number_at(document, f"size/{side}") or 0.0 for side in ("width", "height"))
    return Page(document.findtext("filename") or "", width, height, objects)


def _number_at(element: ElementTree.Element, path: str) -> float | None:
    """The number at a path, if there is a finite one."""
    try:
        value = float(element.findtext(path) or "")
    except ValueError:
        return None
    return value if abs(value) < 1e9 else None
