"""Images with boxes and masks in COCO's JSON: every fault of the files is told at once, before training."""

from __future__ import annotations

import functools
import json
import posixpath
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bbframe.data.boxes.annotated import AnnotatedDataModule
from bbframe.data.boxes.annotated_files import Reading
from bbframe.data.boxes.box_options import CocoOptions
from bbframe.data.boxes.coco_annotations import read_annotations
from bbframe.data.boxes.coco_values import integer, is_id, is_side, whole
from bbframe.data.faults import Faults

# the keys of a file that are kept; polygons that nobody needs would fill the memory
KEYS = frozenset("images annotations categories id name file_name path coco_url width height supercategory".split())
KEYS |= frozenset("image_id category_id bbox area iscrowd".split())
MASK_KEYS = frozenset(("segmentation", "size", "counts"))


class Coco(AnnotatedDataModule):
    """Classes are the categories of train in the order of their ids, which may have gaps.

    The other files' categories are matched with them by name. A category that is only the `supercategory` of all
    others, as Roboflow writes one, is none.

    Images without annotations train too. An annotation with `iscrowd` is a region that an evaluation ignores.
    """

    def __init__(self, options: CocoOptions, *, masks: bool = False, **settings: Any):
        readings = {
            part: functools.partial(read_coco, Path(file), Path(getattr(options, f"{part}_images")), options, masks)
            for part in ("train", "val", "test")
            if (file := getattr(options, f"{part}_annotations"))
        }
        super().__init__(options, readings, masks=masks, **settings)


def read_coco(file: Path, images: Path, options: CocoOptions, masks: bool) -> Reading:
    """The images and annotations of one file, and its faults."""
    reading = Reading(file, images, options, masks)
    if not images.is_dir():
        reading.faults.fatal(f"its images should be in {images}, which is no folder")
    content = _content(file, reading)
    if reading.faults.kinds:
        return reading
    used = {str(whole(a.get("category_id"))) for a in content["annotations"] if isinstance(a, dict)}
    classes = _categories(content["categories"], reading, used)
    places, joined = _images(content["images"], reading)
    read_annotations(content["annotations"], reading, classes, places, joined)
    return reading


def _content(file: Path, reading: Reading) -> dict[str, list[Any]]:
    """The three lists of a file, or a fault."""
    keys = ("images", "annotations", "categories")
    wanted = KEYS if reading.masks is None else KEYS | MASK_KEYS
    try:
        raw = file.read_bytes()
        content = json.loads(raw, object_hook=lambda entry: {k: v for k, v in entry.items() if k in wanted})
    except OSError as error:
        reading.faults.fatal(f"cannot be read: {(error.strerror or str(error)).lower()}")
    except UnicodeDecodeError:
        reading.faults.fatal("is no text (UTF-8)")
    except RecursionError as error:
        reading.faults.fatal(f"is no JSON: {str(error).splitlines()[0]}")
    except json.JSONDecodeError as error:
        what = (
            "is empty" if not raw.strip() else "breaks off" if error.pos >= len(error.doc.rstrip()) else "is no JSON"
        )
        reading.faults.fatal(f"{what} at line {error.lineno}, column {error.colno}: {error.msg.lower()}")
    except ValueError as error:  # a number of thousands of digits
        reading.faults.fatal(f"is no JSON: {str(error).splitlines()[0]}")
    else:
        if not isinstance(content, dict):
            reading.faults.fatal(f"is a list or a value, not a mapping with {', '.join(keys)}")
        elif wrong := [key for key in keys if not isinstance(content.get(key), list)]:
            reading.faults.fatal(f"has no list of {', no list of '.join(wrong)}")
        elif empty := [key for key in keys if not content[key]]:
            reading.faults.fatal(f"has no {', no '.join(empty)}")
        return content
    return {}


def _entries(found: list[Any], kind: str, tell: Callable[..., None], faults: Faults) -> Iterator[tuple[str, Any]]:
    """The mappings in a list, each with its name, such as "image 3"; no id comes twice. `tell` takes what is wrong."""
    seen: dict[str, Any] = {}
    for number, entry in enumerate(found):
        if not isinstance(entry, dict) or not is_id(whole(entry.get("id"))):
            tell(f"malformed {kind} entries", f"number {number}", "must be a mapping with an id")
            continue
        key = str(whole(entry["id"]))
        if key not in seen:
            seen[key] = entry
            yield f"{kind} {key}", entry
        elif entry == seen[key]:
            faults.assume(f"{kind} entries that are there twice", f"{kind} {key}")
        else:
            tell(f"duplicate {kind} ids", f"{kind} {key}", f"give each {kind} its own id")


def _categories(found: list[Any], reading: Reading, used: set[str]) -> dict[str, int] | None:
    """Category ids as text -> classes 0..K-1; `used` are those of objects.

    Whatever is wrong here ends the run; then the result is None.
    """
    faults = reading.faults
    told, names, titles = len(faults.kinds), dict[int, str](), set[str]()
    entries = list(_entries(found, "category", faults.fatal, faults))
    above = Counter(value for _, entry in entries if isinstance(value := entry.get("supercategory"), str))
    for name, entry in entries:
        number, title = integer(entry["id"]), _title(entry.get("name"), faults)
        own = entry.get("supercategory") == entry.get("name")
        others = len(entries) - 1
        if not isinstance(number, int) or not title:
            faults.fatal("malformed category entries", name, "must have an integer id and a name")
        elif str(number) not in used and others and above[entry["name"]] - own == others:
            faults.assume("categories that only stand above the others, which are left out", repr(title))
        elif title in titles:
            faults.fatal("duplicate category names", f"{name} ({title!r})")
        else:
            names[number] = title
            titles.add(title)
    if len(faults.kinds) > told:
        return None
    reading.category_ids = sorted(names)
    reading.class_names = [names[key] for key in sorted(names)]
    return {str(key): label for label, key in enumerate(sorted(names))}


def _title(name: Any, faults: Faults) -> str | None:
    """The name of a class, which may be a number; None when there is none."""
    if type(name) in (int, float):
        faults.assume("names of classes that are numbers", repr(name))
        return str(whole(name))
    title = " ".join(name.split()) if isinstance(name, str) else None
    if title and title != name:
        faults.assume("names of classes with spaces around, which are left out", repr(name))
    return title


def _images(found: list[Any], reading: Reading) -> tuple[dict[str, int | None], set[int]]:
    """Image ids as text -> places, None for an image that cannot serve; and the places that have several ids."""
    faults = reading.faults
    places: dict[str, int | None] = {}
    joined: set[int] = set()
    ids: dict[str, str] = {}  # the first id of each path
    for name, entry in _entries(found, "image", faults.drop, faults):
        key, path, size = str(whole(entry["id"])), _path(name, entry, faults), _size(name, entry, faults)
        places[key] = None
        if not path or size == ():
            told = ", ".join(f"{key}={entry.get(key)!r:.60}" for key in ("file_name", "width", "height"))
            faults.drop("malformed image entries", name, told)
        elif (first := ids.setdefault(posixpath.normpath(path), key)) == key:
            places[key] = reading.image(name, path, size or None, whole(entry["id"]))
        elif (place := places[first]) is not None and size and size[::-1] != reading.sizes[place]:
            faults.drop("images of another size than is said", name, f"image {first} is the same file")
        elif place is not None:
            faults.assume("images listed under several ids, whose annotations are joined", name)
            places[key] = place
            joined.add(place)
    return places, joined


def _path(name: str, entry: dict[str, Any], faults: Faults) -> str | None:
    """Where an image lies, None if it is not said."""
    said = ((key, entry.get(key)) for key in ("file_name", "path", "coco_url"))
    key, path = next(((key, path) for key, path in said if path and isinstance(path, str)), ("file_name", None))
    if key != "file_name":
        faults.assume(f"images without file_name, whose {key} is taken", name)
    return path


def _size(name: str, entry: dict[str, Any], faults: Faults) -> tuple[int, int] | tuple[()] | None:
    """The (width, height) of an image, None if they are not said, () if they cannot be."""
    width, height = (integer(entry.get(key)) for key in ("width", "height"))
    if is_side(width) and is_side(height):
        return width, height
    if any(value not in (None, 0, "") and not is_side(value) for value in (width, height)):
        return ()
    faults.assume("images without width and height, which are those of the file", name)
    return None
