"""Images with boxes in Pascal VOC's XML, one file an image: every fault is told at once, before training."""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree  # expat fetches no external entity, and stops those that would grow without end

from bbframe.data.boxes.annotated import AnnotatedDataModule
from bbframe.data.boxes.annotated_files import Reading
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
        if not has_lists(root) and annotation_folder(root) is not None:
            # no lists: all annotations train, and give the other parts a fraction; or a folder for each part
            sets = {part: name for part, name in sets.items() if part == "train" or (root / name).is_dir()}
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
    """The `pages` of a set by their images' names, the `broken` ones and why, and what is wrong with its `list`.

    Without a list the set is all annotations of its folder. `images` is where their images should be.
    """

    def __init__(self, root: Path, name: str):
        self.file = root / "ImageSets" / "Main" / f"{name}.txt"
        self.pages: dict[str, Page] = {}
        self.broken: dict[str, str] = {}
        self.list: list[str] = []
        self.assumed: list[tuple[str, str]] = []
        home = root
        if has_lists(root) or (found := annotation_folder(root, name)) is None:
            found = root / "Annotations"
            stems = self._listed(found)
        else:
            home = root / name if (root / name).is_dir() else root
            self.assumed.append(
                ("folders without a list in ImageSets/Main, of which all annotations are taken", f"{home}")
            )
            stems, self.file = sorted(path.stem for path in found.glob("*.xml")), home
        self.folder, self.prefix = found, "" if found == home else f"{found.name}/"
        places = [home / name for name in ("JPEGImages", "images", "Images", "imgs")]
        self.images = next((place for place in places if place.is_dir()), found if self.file == home else places[0])
        for stem in stems:
            try:
                self.pages[stem] = _page(found / f"{stem}.xml")
            except (OSError, ElementTree.ParseError, ValueError, LookupError, RecursionError) as error:
                self.broken[stem] = (getattr(error, "strerror", None) or str(error)).lower()

    def _listed(self, folder: Path) -> list[str]:
        try:
            raw = self.file.read_bytes()
            lines = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            self.list.append(f"cannot be read: {getattr(error, 'strerror', None) or 'no text'}".lower())
            return []
        stems = []
        for line in filter(None, map(str.strip, lines)):
            # a name may hold spaces, and a number behind it says if the image shows a class
            tried = [line, re.sub(r"\s+-?[01]$", "", line)]
            tried += [os.path.splitext(name)[0] for name in tried]
            known = (name for name in tried if "/" not in name and (folder / f"{name}.xml").is_file())
            stem = next(known, line if "/" in line or "\\" in line else line.split()[0])
            if "/" in stem or "\\" in stem:
                self.list.append(f"{stem!r} is no name of an image")
            else:
                stems.append(stem)
        return list(dict.fromkeys(stems))


def has_lists(root: Path) -> bool:
    """Whether there are lists of images, as in Pascal VOC."""
    return any((root / "ImageSets" / "Main").glob("*.txt"))


def annotation_folder(root: Path, part: str | None = None) -> Path | None:
    """Where annotations without a list lie: in the folder of a `part`, in Annotations/, or beside the images."""
    names = ("Annotations", "annotations", "labels", "xmls", ".")
    homes = [root / part, root] if part and (root / part).is_dir() else [root]
    homes += [root / "train"] if part is None else []
    return next((home / name for home in homes for name in names if any((home / name).glob("*.xml"))), None)


def read_voc(documents: Documents, options: VocOptions, class_names: list[str]) -> Reading:
    """The images and objects of one set, and its faults; without any class names, no class is a fault."""
    reading = Reading(documents.file, documents.images, options, masks=False)
    reading.class_names = class_names
    for why in documents.list:
        reading.faults.fatal(why)
    for what, place in documents.assumed:
        reading.faults.assume(what, place)
    for stem, why in documents.broken.items():
        reading.faults.drop("unreadable annotations", f"{documents.prefix}{stem}.xml", why)
    for stem, page in documents.pages.items():
        title = f"{documents.prefix}{stem}.xml"
        size = (int(page.width), int(page.height)) if min(page.width, page.height) >= 1 else None
        if size is None:
            reading.faults.assume("annotations without the size of their image, which is the file's", title)
        path = page.path if ".." in page.path else re.split(r"[/\\]", page.path)[-1]
        if not path or not (documents.images / path).is_file():
            if path and os.path.splitext(path)[0] != stem and ".." not in path:
                reading.faults.assume("annotations that name another image, taken for that of their own name", title)
            path = path if ".." in path else f"{stem}{os.path.splitext(path)[1] or '.jpg'}"
        image = reading.image(title, path, size, stem)
        for number, (said, box, difficult) in enumerate(page.objects, 1):
            title = f"object {number} of {documents.prefix}{stem}.xml"
            if class_names and said not in class_names:
                reading.faults.drop("classes that no training image has", title, str(said))
            elif len(box) < 4:
                reading.faults.drop("malformed boxes", title, "must have xmin, ymin, xmax and ymax")
            elif image is not None:
                # pixels are counted from 1, and the last one is still in the box
                inside = reading.box(title, image, [box[0] - 1, box[1] - 1, box[2], box[3]])
                if inside is not None:
                    area = (inside[2] - inside[0]) * (inside[3] - inside[1])
                    label = class_names.index(said) if class_names and said else 0
                    reading.add(image, inside, label, difficult, area)
    return reading


def _page(path: Path) -> Page:
    document = ElementTree.parse(path).getroot()
    objects = []
    for found in document.iter("object"):
        sides = [_number_at(found, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
        box = [side for side in sides if side is not None]
        title = " ".join((found.findtext("name") or "").split()) or None
        objects.append(Object(title, box, bool(_number_at(found, "difficult"))))
    width, height = (_number_at(document, f"size/{side}") or 0.0 for side in ("width", "height"))
    return Page((document.findtext("filename") or "").strip(), width, height, objects)


def _number_at(element: ElementTree.Element, path: str) -> float | None:
    """The number at a path, if there is a finite one."""
    try:
        value = float(element.findtext(path) or "")
    except ValueError:
        return None
    return value if abs(value) < 1e9 else None
