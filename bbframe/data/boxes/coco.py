"""Images with boxes and masks in COCO's JSON: every fault of the files is told at once, before training."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from bbframe.data.boxes.annotated import AnnotatedDataModule
from bbframe.data.boxes.annotated_files import TOLERANCE, Reading
from bbframe.data.boxes.box_options import CocoOptions

# the keys of a file that are kept; polygons that nobody needs would fill the memory
KEYS = frozenset("images annotations categories id name file_name width height supercategory".split())
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
    places = _images(content["images"], reading)
    _annotations(content["annotations"], reading, classes, places)
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


def _entries(found: list[Any], kind: str, reading: Reading) -> Iterator[tuple[str, dict[str, Any]]]:
    """The mappings in a list, each with its name, such as "image 3"; no id comes twice. Annotations may lack one."""
    seen = set()
    for number, entry in enumerate(found):
        if kind == "annotation" and isinstance(entry, dict) and entry.get("id") is None:
            reading.faults.assume("annotations without an id", f"number {number}")
            yield f"annotation number {number}", entry
            continue
        if not isinstance(entry, dict) or not _id(whole(entry.get("id"))):
            reading.faults.drop(f"malformed {kind} entries", f"number {number}", "must be a mapping with an id")
            continue
        key = str(whole(entry["id"]))
        if key in seen:
            reading.faults.drop(f"duplicate {kind} ids", f"{kind} {key}")
        else:
            seen.add(key)
            yield f"{kind} {key}", entry


def _categories(found: list[Any], reading: Reading, used: set[str]) -> dict[str, int]:
    """Category ids as text -> classes 0..K-1; `used` are those of objects. Whatever is wrong here ends the run."""
    skip, reading.faults.skip = reading.faults.skip, False
    names: dict[int, str] = {}
    entries = list(_entries(found, "category", reading))
    for name, entry in entries:
        number, title = whole(entry["id"]), entry.get("name")
        number = int(number) if isinstance(number, str) and number.isdecimal() else number
        title = " ".join(title.split()) if isinstance(title, str) else None
        above = [other.get("supercategory") for _, other in entries if other is not entry]
        if not isinstance(number, int) or not title:
            reading.faults.fatal("malformed category entries", f"{name} (must have an integer id and a name)")
        elif str(number) not in used and above and all(value == entry["name"] for value in above):
            reading.faults.assume("categories that only stand above the others, which are left out", repr(title))
        elif title in names.values():
            reading.faults.fatal("duplicate category names", f"{name} ({title!r})")
        else:
            names[number] = title
            if title != entry["name"]:
                reading.faults.assume("names of classes with spaces around, which are left out", repr(entry["name"]))
    reading.faults.skip = skip
    reading.category_ids = sorted(names)
    reading.class_names = [names[key] for key in sorted(names)]
    return {str(key): label for label, key in enumerate(sorted(names))}


def _images(found: list[Any], reading: Reading) -> dict[str, int | None]:
    """Image ids as text -> places; None for an image that cannot serve."""
    places: dict[str, int | None] = {}
    for name, entry in _entries(found, "image", reading):
        path, image_id = entry.get("file_name"), whole(entry["id"])
        width, height = (_number(entry.get(key)) for key in ("width", "height"))
        places[str(image_id)] = None
        if not isinstance(path, str) or not path or not _size(width) or not _size(height):
            why = f"file_name={path!r}, width={entry.get('width')!r}, height={entry.get('height')!r}"
            reading.faults.drop("malformed image entries", name, why)
        else:
            places[str(image_id)] = reading.image(name, path, (width, height), image_id)
    return places


def _annotations(found: list[Any], reading: Reading, classes: dict[str, int], places: dict[str, int | None]) -> None:
    """Take every annotation that is whole; the others are faults, unless their image is one already."""
    faults = reading.faults
    for name, entry in _entries(found, "annotation", reading):
        image_id, category, bbox, area = (entry.get(key) for key in ("image_id", "category_id", "bbox", "area"))
        crowd = _number(entry.get("iscrowd") or 0)
        good = True
        if isinstance(image_id, bool) or isinstance(category, bool):  # true is 1 for Python
            faults.drop("malformed annotation entries", name, f"image_id={image_id!r}, category_id={category!r}")
            continue
        image_key, category_key = str(whole(image_id)), str(whole(category))
        if not _id(whole(image_id)) or image_key not in places:
            faults.drop("annotations of unknown images", name, f"image_id={image_id!r}")
            good = False
        if not _id(whole(category)) or category_key not in classes:
            faults.drop("unknown category ids", name, f"category_id={category!r}")
            good = False
        if crowd not in (0, 1) or not (area is None or (_is_number(area) and area >= 0)):
            faults.drop("malformed annotation entries", name, f"iscrowd={crowd!r}, area={area!r}")
            good = False
        if not isinstance(bbox, list) or len(bbox) != 4 or not all(type(v) in (int, float) for v in bbox):
            faults.drop("malformed annotation entries", name, f"bbox={bbox!r:.60} must be 4 numbers")
            continue
        if not all(_is_number(v) for v in bbox) or bbox[2] <= 0 or bbox[3] <= 0:
            shown = ", ".join(f"{v:g}" if isinstance(v, float) else str(v)[:12] for v in bbox)
            faults.drop("boxes without an area", name, f"bbox=[{shown}]")
            continue
        image = places[image_key] if good else None
        if image is None:
            continue
        if type(image_id) is not int or type(category) is not int:
            faults.assume("annotations whose ids are written otherwise, as text or 1.0", name)
        box = reading.box(name, image, [bbox[0], bbox[1], bbox[0] + bbox[2], bbox[1] + bbox[3]])
        mask = None
        if reading.masks is not None:
            try:
                said: list[str] = []
                mask = segmentation_rle(entry.get("segmentation"), *reading.sizes[image], said)
            except (ValueError, RuntimeError, TypeError) as error:
                faults.drop("missing or malformed masks", name, str(error).splitlines()[0])
                continue
            for what in said:
                faults.assume(what, name)
        if box is not None:
            area = (box[2] - box[0]) * (box[3] - box[1]) if area is None else area
            reading.add(image, box, classes[category_key], bool(crowd), area, mask)


def segmentation_rle(segmentation: Any, height: int, width: int, said: list[str]) -> bytes:
    """COCO's compressed run lengths of a mask, from polygons or from run lengths of either kind.

    `said` takes what had to be assumed. Raises ValueError or RuntimeError for what is neither, or does not fit.
    """
    from faster_coco_eval.core.mask import decode, frPyObjects, merge

    if isinstance(segmentation, dict):
        if segmentation.get("size") != [height, width]:
            raise ValueError(f"size={segmentation.get('size')!r:.40} must be [{height}, {width}]")
        counts = segmentation.get("counts")
        if isinstance(counts, list):
            counts = [whole(n) for n in counts]
            if not all(type(n) is int and n >= 0 for n in counts) or sum(counts) != height * width:
                raise ValueError(f"counts must be whole numbers whose sum is {height}x{width}")
            counts = frPyObjects({"size": [height, width], "counts": counts}, height, width)["counts"]
        if not isinstance(counts, str | bytes) or not counts:
            raise ValueError("counts must be a list or text")
        raw = counts.encode() if isinstance(counts, str) else counts
        decode({"size": [height, width], "counts": raw})
        return raw
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError("no segmentation" if not segmentation else "segmentation must be a list or a mapping")
    if not isinstance(segmentation[0], list) or all(_is_point(point) for point in segmentation):
        segmentation = [segmentation]  # a single ring that is not in a list of rings
        said.append("polygons written as one list, or as points")
    rings, faults = [], []
    for ring in segmentation:
        if isinstance(ring, list) and ring and all(_is_point(point) for point in ring):
            ring = [value for point in ring for value in point]
        if not isinstance(ring, list) or len(ring) < 6 or len(ring) % 2 or not all(_is_number(v) for v in ring):
            faults.append("a polygon must be a list of 3 or more points, x, y, x, y, ...")
            continue
        points = np.array(ring, float).reshape(-1, 2)
        outside = np.abs(points - points.clip(0, (width, height))).max()
        if outside > max(width, height):  # far outside it would cost memory without end
            faults.append("a polygon leaves the image")
            continue
        if outside > TOLERANCE:
            said.append("polygons that stick out of their image, which are clipped")
        rings.append(points.ravel().tolist())
    if not rings:
        raise ValueError(faults[0])
    if faults:
        said.append("masks of which a ring that is no polygon is left out")
    merged = merge(frPyObjects(rings, height, width))
    return merged["counts"]


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_is_number(v) for v in value)


def whole(value: Any) -> Any:
    """A number such as 1.0, which some tools write for 1, as an integer; anything else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def _number(value: Any) -> Any:
    """As `whole`, also of text."""
    return int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 10 else whole(value)


def _id(value: Any) -> TypeGuard[int | str]:
    return type(value) in (int, str)


def _is_number(value: Any) -> TypeGuard[float]:
    return type(value) in (int, float) and abs(value) < 1e9


def _size(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 < value < 10**6
