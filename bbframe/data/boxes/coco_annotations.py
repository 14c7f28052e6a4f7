"""The objects in COCO's JSON: each is read as whatever tool wrote it, or is a fault."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from bbframe.data.boxes.annotated_files import Reading
from bbframe.data.boxes.coco_values import integer, is_id, is_number, real, whole
from bbframe.data.boxes.segmentations import segmentation_rle
from bbframe.data.faults import Faults


def read_annotations(
    found: list[Any],
    reading: Reading,
    classes: dict[str, int] | None,
    places: dict[str, int | None],
    joined: set[int],
) -> None:
    """Take every annotation that is whole; the others are faults, unless their image is one already.

    `classes` are those of the category ids, None when a fault of the categories has been told; `places` are those of
    the image ids, None for an image that cannot serve; `joined` are the places that have several ids.
    """
    faults, listed = reading.faults, False
    marks: set[int] = set()
    for name, entry, shared in _entries(found, faults):
        image_id, category = whole(entry.get("image_id")), whole(entry.get("category_id"))
        if not is_id(image_id) or isinstance(category, bool):  # true is 1 for Python
            why = f"image_id={image_id!r:.60}, category_id={category!r:.60}"
            faults.drop("malformed annotation entries", name, why)
            continue
        if str(image_id) not in places:
            faults.assume("annotations of images that the file does not list, which are left out", name)
            continue
        listed, image = True, places[str(image_id)]
        own = image if image in joined else (entry.get("id"), image_id)
        mark = hash(repr((own, category, entry.get("bbox"))))
        if mark in marks and (image in joined or entry.get("id") is not None):
            faults.assume("annotations that repeat another one, which are left out", name)
            continue
        marks.add(mark)
        if shared:
            faults.assume("annotations that share an id, which count one by one", name)
        _object(name, entry, reading, classes, image)
    if not listed and not faults.kinds:
        first = next((entry.get("image_id") for entry in found if isinstance(entry, dict)), None)
        ids = f"the first has image_id={first!r:.60}, the first image id={next(iter(places), None)}"
        faults.fatal(f"no annotation has the id of an image ({ids}); write the images' ids into image_id")
    _settle_areas(reading)


def _entries(found: list[Any], faults: Faults) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """The mappings in a list, each with its name, such as "annotation 3", and whether it shares that with another."""
    seen: set[str] = set()
    for number, entry in enumerate(found):
        if isinstance(entry, dict) and entry.get("id") is None:
            faults.assume("annotations without an id", f"number {number}")
            yield f"annotation number {number}", entry, False
        elif not isinstance(entry, dict) or not is_id(whole(entry["id"])):
            faults.drop("malformed annotation entries", f"number {number}", "must be a mapping with an id")
        else:
            key = str(whole(entry["id"]))
            shared = key in seen
            seen.add(key)
            yield f"annotation {key}" + (f" (number {number})" if shared else ""), entry, shared


def _object(
    name: str, entry: dict[str, Any], reading: Reading, classes: dict[str, int] | None, image: int | None
) -> None:
    """Take one annotation, or tell all that is wrong with it."""
    faults = reading.faults
    category, crowd = entry.get("category_id"), integer(entry.get("iscrowd") or 0)
    label = 0 if classes is None else classes.get(str(whole(category)))
    if label is None:
        faults.drop("unknown category ids", name, f"category_id={category!r:.60}")
    if crowd not in (0, 1):
        faults.drop("malformed annotation entries", name, f"iscrowd={crowd!r:.60}")
    bbox = _bbox(name, entry.get("bbox"), faults)
    if bbox is None or label is None or crowd not in (0, 1) or image is None:
        return
    if type(entry.get("image_id")) is not int or type(category) is not int:
        faults.assume("annotations whose ids are written otherwise, as text or 1.0", name)
    box = reading.box(name, image, [bbox[0], bbox[1], bbox[0] + bbox[2], bbox[1] + bbox[3]])
    mask = None
    if reading.masks is not None and (mask := _mask(name, entry.get("segmentation"), reading, image)) is None:
        return
    if box is not None:
        reading.add(image, box, label, bool(crowd), _area(name, entry.get("area"), box, faults), mask)


def _bbox(name: str, bbox: Any, faults: Faults) -> list[float] | None:
    """The left, top, width and height of a box, None when it has none."""
    values = [real(value) for value in bbox] if isinstance(bbox, list) and len(bbox) == 4 else []
    if not values or not all(type(value) in (int, float) for value in values):
        faults.drop("malformed annotation entries", name, f"bbox={bbox!r:.60} must be 4 numbers")
        return None
    if not all(is_number(value) for value in values) or values[2] <= 0 or values[3] <= 0:
        shown = ", ".join(f"{value:g}" if isinstance(value, float) else str(value)[:12] for value in values)
        faults.drop("boxes without an area", name, f"bbox=[{shown}]")
        return None
    if any(isinstance(value, str) for value in bbox):
        faults.assume("boxes whose numbers are written as text", name)
    return values


def _mask(name: str, segmentation: Any, reading: Reading, image: int) -> bytes | None:
    said: list[str] = []
    try:
        mask = segmentation_rle(segmentation, *reading.sizes[image], said)
    except (ValueError, RuntimeError, TypeError) as error:
        reading.faults.drop("missing or malformed masks", name, str(error).splitlines()[0])
        return None
    for what in said:
        reading.faults.assume(what, name)
    return mask


def _area(name: str, area: Any, box: list[float], faults: Faults) -> float:
    """The area in the file, or else the area of the box (x1, y1, x2, y2)."""
    value = real(area)
    if is_number(value) and value >= 0:
        if isinstance(area, str):
            faults.assume("areas written as text", name)
        return value
    if area is not None:
        faults.assume("areas that are no number from 0 on, for which that of the box is taken", name)
    return (box[2] - box[0]) * (box[3] - box[1])


def _settle_areas(reading: Reading) -> None:
    """Give all objects the area of their boxes when the file says 0 for each, which would make all of them small."""
    table = np.frombuffer(reading.table).reshape(-1, 8)
    if len(table) and not table[:, 7].any():
        table[:, 7] = (table[:, 3] - table[:, 1]) * (table[:, 4] - table[:, 2])
        what = "files in which every area is 0, for which that of the box is taken"
        reading.faults.assume(what, f"{len(table)} annotations")
