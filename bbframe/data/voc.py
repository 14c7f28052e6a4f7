"""Images with boxes in Pascal VOC's XML, one file an image: every fault is told at once, before training."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any
from xml.etree import ElementTree  # expat fetches no external entity, and stops those that would grow without end

from bbframe.data import register
from bbframe.data.annotated import AnnotatedDataModule, Reading
from bbframe.data.options import VocOptions


@register(VocOptions)
class Voc(AnnotatedDataModule):
    """Classes are the names that the training images' objects bear, in alphabetical order.

    A `difficult` object is a region that an evaluation ignores and that training does not see.
    """

    def __init__(self, options: VocOptions, *, masks: bool = False, **settings: Any):
        if masks:
            raise ValueError("data: voc has no masks; choose a head without, or data=coco")
        root = Path(options.root or "")
        documents = _documents(root, options.train_set)[0].values()
        names = sorted({name for document in documents for name in _names(document)})
        sets = {part: getattr(options, f"{part}_set") for part in ("train", "val", "test")}
        readings = {
            part: functools.partial(read, root, name, options, names)
            for part, name in sets.items()
            if name is not None
        }
        super().__init__(options, readings, masks=False, **settings)


def read(root: Path, name: str, options: VocOptions, class_names: list[str]) -> Reading:
    """The images and objects of one set, and its faults."""
    reading = Reading(root / "ImageSets" / "Main" / f"{name}.txt", root / "JPEGImages", options, masks=False)
    documents, broken = _documents(root, name)
    reading.class_names = class_names
    for stem, why in broken.items():
        if stem:
            reading.faults.drop("unreadable annotations", f"Annotations/{stem}.xml", why)
        else:
            reading.faults.fatal(why)
    for stem, document in documents.items():
        width, height = (_number(document, f"size/{side}") for side in ("width", "height"))
        if not width or not height or min(width, height) < 1:
            reading.faults.drop("images without a size", f"Annotations/{stem}.xml")
            continue
        path = document.findtext("filename") or f"{stem}.jpg"
        image = reading.image(f"Annotations/{stem}.xml", path, int(width), int(height), stem)
        for number, found in enumerate(document.iter("object"), 1):
            title, label = f"object {number} of Annotations/{stem}.xml", found.findtext("name")
            sides = [_number(found, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
            box = [side for side in sides if side is not None]
            if label not in class_names:
                reading.faults.drop("classes that no training image has", title, str(label))
            elif len(box) < 4:
                reading.faults.drop("malformed boxes", title, "must have xmin, ymin, xmax and ymax")
            elif image is not None:
                # pixels are counted from 1, and the last one is still in the box
                inside = reading.box(title, image, [box[0] - 1, box[1] - 1, box[2], box[3]])
                if inside is not None:
                    area = (inside[2] - inside[0]) * (inside[3] - inside[1])
                    difficult = bool(_number(found, "difficult"))
                    reading.add(image, inside, class_names.index(label), difficult, area)
    return reading


def _documents(root: Path, name: str) -> tuple[dict[str, ElementTree.Element], dict[str, str]]:
    """The annotations of a set, by the image's name, and what cannot be read; "" is the set itself."""
    try:
        lines = (root / "ImageSets" / "Main" / f"{name}.txt").read_text().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        return {}, {"": f"cannot be read: {getattr(error, 'strerror', None) or 'no text'}".lower()}
    found, broken = {}, {}
    for stem in dict.fromkeys(line.split()[0] for line in lines if line.strip()):
        if "/" in stem or "\\" in stem:
            broken[""] = f"{stem!r} is no name of an image"
            continue
        try:
            found[stem] = ElementTree.parse(root / "Annotations" / f"{stem}.xml").getroot()
        except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:
            broken[stem] = (getattr(error, "strerror", None) or str(error)).lower()
    return found, broken


def _names(document: ElementTree.Element) -> list[str]:
    return [name for found in document.iter("object") if (name := found.findtext("name"))]


def _number(element: ElementTree.Element, path: str) -> float | None:
    """The number at a path, if there is a finite one."""
    try:
        value = float(element.findtext(path) or "")
    except ValueError:
        return None
    return value if abs(value) < 1e9 else None
