"""Masks in COCO's JSON, polygons or run lengths, as compressed run lengths."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from bbframe.data.boxes.annotated_files import TOLERANCE
from bbframe.data.boxes.coco_values import is_number, whole

# of one object's polygons: drawing them takes about 40 bytes and 0.4 microseconds a pixel of their outlines
MOST_POINTS, MOST_LENGTH = 10**6, 5 * 10**6
MOST_TURNS = 50  # how often the outlines may pass over each pixel of an image


def segmentation_rle(segmentation: Any, height: int, width: int, said: list[str]) -> bytes:
    """COCO's compressed run lengths of a mask, from polygons or from run lengths of either kind.

    `said` takes what had to be assumed. Raises ValueError or RuntimeError for what is neither, or does not fit.
    """
    from faster_coco_eval.core.mask import merge

    if isinstance(segmentation, dict):
        return _run_lengths(segmentation, height, width, said)
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError("no segmentation" if not segmentation else "segmentation must be a list or a mapping")
    if not all(isinstance(part, dict) for part in segmentation):
        return _polygons(segmentation, height, width, said)
    said.append("run lengths written as a list")
    parts = [_run_lengths(part, height, width, said) for part in segmentation]
    return merge([{"size": [height, width], "counts": part} for part in parts])["counts"]


def _run_lengths(segmentation: dict[str, Any], height: int, width: int, said: list[str]) -> bytes:
    from faster_coco_eval.core.mask import decode, frPyObjects

    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size is None:
        said.append("run lengths without a size, which is that of their image")
    elif size != [height, width]:
        raise ValueError(f"size={size!r:.40} must be [{height}, {width}], the height and width of the image")
    if isinstance(counts, list):
        counts = [whole(n) for n in counts]
        if not all(type(n) is int and n >= 0 for n in counts) or sum(counts) != height * width:
            raise ValueError(f"counts must be whole numbers whose sum is {height}x{width}")
        counts = frPyObjects({"size": [height, width], "counts": counts}, height, width)["counts"]
    if not isinstance(counts, str | bytes) or not counts:
        raise ValueError("counts must be a list or text")
    if isinstance(counts, str) and re.match(r"b(['\"]).*\1$", counts):  # Python's bytes as str(...) writes them
        said.append("run lengths written as b'...'")
        counts = counts[2:-1].replace("\\\\", "\\")
    raw = counts.encode() if isinstance(counts, str) else counts
    decode({"size": [height, width], "counts": raw})
    return raw


def _polygons(segmentation: list[Any], height: int, width: int, said: list[str]) -> bytes:
    from faster_coco_eval.core.mask import frPyObjects, merge

    if not isinstance(segmentation[0], list) or all(_is_point(point) for point in segmentation):
        segmentation = [segmentation]  # a single ring that is not in a list of rings
        said.append("polygons written as one list, or as points")
    rings: list[np.ndarray] = []
    faults = []
    for ring in segmentation:
        if isinstance(ring, list) and ring and all(_is_point(point) for point in ring):
            ring = [value for point in ring for value in point]
        if not isinstance(ring, list) or len(ring) < 6 or len(ring) % 2 or not all(is_number(v) for v in ring):
            faults.append("a polygon must be a list of 3 or more points, x, y, x, y, ...")
            continue
        points = np.array(ring, float).reshape(-1, 2)
        outside = np.abs(points - points.clip(0, (width, height))).max()
        if outside > max(width, height):  # far outside it would cost memory without end
            faults.append("a polygon leaves the image")
            continue
        if outside > TOLERANCE:
            said.append("polygons that stick out of their image, which are clipped")
        rings.append(points)
    if not rings:
        raise ValueError(faults[0])
    if faults:
        said.append("masks of which a ring that is no polygon is left out")
    _check_length(rings, height, width)
    return merge(frPyObjects([ring.ravel().tolist() for ring in rings], height, width))["counts"]


def _check_length(rings: list[np.ndarray], height: int, width: int) -> None:
    """Refuse polygons (N, 2) that a small file can hold but that take much time and memory to draw."""
    points = sum(map(len, rings))
    length = sum(float(np.abs(ring - np.roll(ring, 1, axis=0)).max(1).sum()) for ring in rings)
    most = min(MOST_TURNS * height * width, MOST_LENGTH)
    if points > MOST_POINTS:
        raise ValueError(f"outlines of {points} points, more than {MOST_POINTS}; write run lengths instead")
    if length > most:
        raise ValueError(f"outlines of {length:.0f} pixels, more than {most}; write run lengths instead")


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(is_number(v) for v in value)
