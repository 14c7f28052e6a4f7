"""Images that are there twice, found by their content without decoding a file."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bbframe.data.batch_loader import Images

MOST_LOOKED_AT = 20_000  # images of a data set
MOST_READ_BYTES = 2**28  # of files that may be copies
MOST_SECONDS = 5.0
GLIMPSE = 4096  # bytes from the middle of a file that are compared first

Place = tuple[str, int]  # a part, and the place of an image in it


class NotLooked(Exception):
    """Why nobody looked for copies; the text goes behind "copies were not looked for"."""


def copy_groups(parts: Mapping[str, Images]) -> list[list[Place]]:
    """The images with equal content, a list for each content that several have, in the order of `parts`.

    Files count as equal byte by byte, images without files pixel by pixel. Shards know the digest of every file, so
    that nothing is read. Raises NotLooked where the images are more
    than `MOST_LOOKED_AT`, or where it would read too much or take too long.
    """
    digests = {part: getattr(images, "digests", None) for part, images in parts.items()}
    if all(values is not None for values in digests.values()):
        return _equal_digests(digests)
    count = sum(len(images.labels) for images in parts.values())
    if count > MOST_LOOKED_AT:
        raise NotLooked(f"there are {count:,} images, more than {MOST_LOOKED_AT:,}")
    clock = _Clock()
    files: list[tuple[Place, Path]] = []
    by_pixels: dict[bytes, list[Place]] = {}
    for part, images in parts.items():
        for index in range(len(images.labels)):
            if (path := image_file(images, index)) is not None:
                files.append(((part, index), path))
                continue
            clock.check()
            try:
                image = images.read(index)
            except Exception:  # a decoder may raise anything; the training tells
                continue
            content = hashlib.sha256(repr((image.mode, image.size)).encode() + image.tobytes()).digest()
            by_pixels.setdefault(content, []).append((part, index))
    groups = [group for group in by_pixels.values() if len(group) > 1] + _equal_files(files, clock)
    order = {part: number for number, part in enumerate(parts)}
    return sorted(groups, key=lambda group: (order[group[0][0]], group[0][1]))


def _equal_digests(digests: Mapping[str, Any]) -> list[list[Place]]:
    """The images whose files have equal digests."""
    starts = dict(zip(digests, np.cumsum([0, *(len(values) for values in digests.values())]), strict=False))
    _, which, counts = np.unique(np.concatenate([*digests.values()]), return_inverse=True, return_counts=True)
    groups: dict[int, list[Place]] = {}
    for part, values in digests.items():
        own = which[starts[part] : starts[part] + len(values)]
        for index in np.flatnonzero(counts[own] > 1).tolist():
            groups.setdefault(int(own[index]), []).append((part, index))
    return list(groups.values())


def image_file(images: Images, index: int) -> Path | None:
    """The file of an image, None for one that has none."""
    root, paths = getattr(images, "root", None), getattr(images, "paths", None)
    return None if root is None or paths is None else Path(root, paths[index])


class _Clock:
    """Ends a search that takes too long."""

    def __init__(self) -> None:
        self.started, self.read = time.monotonic(), 0

    def check(self, more: int = 0) -> None:
        self.read += more
        if self.read > MOST_READ_BYTES:
            raise NotLooked(f"more than {MOST_READ_BYTES >> 20} MiB would have to be read")
        if time.monotonic() - self.started > MOST_SECONDS:
            raise NotLooked(f"it took more than {MOST_SECONDS:g} s")


def _equal_files(files: Sequence[tuple[Place, Path]], clock: _Clock) -> list[list[Place]]:
    """Files that are equal: by their sizes, then by a few bytes, and only what is left by all bytes."""
    sizes: dict[Path, int] = {}
    for _, path in files:
        clock.check()
        try:
            sizes[path] = os.stat(path).st_size
        except OSError:
            continue
    there = [(place, path) for place, path in files if path in sizes]
    groups = _split([there], lambda path: sizes[path])
    groups = _split(groups, lambda path: (sizes[path], _content(path, clock, (sizes[path] - GLIMPSE) // 2, GLIMPSE)))
    groups = _split(groups, lambda path: _content(path, clock, 0, sizes[path]))
    return [[place for place, _ in group] for group in groups]


def _split(
    groups: Iterable[Sequence[tuple[Place, Path]]], key: Callable[[Path], object]
) -> list[list[tuple[Place, Path]]]:
    """The groups divided by a key, without those of one file and those whose key is None."""
    found: list[list[tuple[Place, Path]]] = []
    for group in groups:
        inside: dict[object, list[tuple[Place, Path]]] = {}
        for place, path in group:
            if (value := key(path)) is not None:
                inside.setdefault(value, []).append((place, path))
        found += [members for members in inside.values() if len(members) > 1]
    return found


def _content(path: Path, clock: _Clock, start: int, length: int) -> bytes | None:
    """The SHA-256 of a piece of a file; None for a file that cannot be read."""
    clock.check(length)
    try:
        with open(path, "rb") as file:
            file.seek(max(0, start))
            return hashlib.sha256(file.read(length)).digest()
    except OSError:
        return None
