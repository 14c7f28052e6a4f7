"""The images of a prediction: the files that paths and patterns stand for, and what their results are called."""

from __future__ import annotations

import difflib
import glob
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

# the tables that a prediction writes, of classes and of boxes, and how each begins
TABLES = (
    {"predictions.csv": b"image,predicted,probability"},
    {"predictions.json": b"[", "images.json": b'{\n "images": ['},
)
OFFERED = 5  # names that an error offers
PICTURES = (".jpg", ".jpeg", ".png")  # the picture of an image in another format has .png appended to its name


@dataclass(frozen=True)
class InputImage:
    """An image file; what its results call it, a path relative to all images' common folder; its picture's path."""

    path: Path
    name: str
    picture: Path


def find_images(words: Sequence[str], out: Path) -> list[InputImage]:
    """Find the image files that paths and patterns name, folders with all that is below them, in sorted order.

    Pictures that cannot be decoded are among them, so that they are told as skipped. Hidden files are left out. So are
    folders that hold the results of an earlier prediction, unless a word names them.
    Raises ValueError when a path does not exist or there is no image.
    """
    from bbframe.data.images.image_folder import walk_once
    from bbframe.imaging.decode import SUFFIXES, UNREADABLE

    pictures = SUFFIXES | UNREADABLE
    files: list[str] = []
    roots: list[str] = []
    for word in words:
        given = [word] if os.path.exists(word) else sorted(glob.glob(word, recursive=True))
        if not given:
            raise ValueError(f"predict: images={word}: {_describe_absence(Path(word), SUFFIXES)}")
        for path in given:
            roots.append(os.path.abspath(path if os.path.isdir(path) else os.path.dirname(path)))
            if not os.path.isdir(path):
                files.append(path)
            for folder, names, _ in walk_once(path, _holds_results):
                found = [n for n in names if n[0] != "." and os.path.splitext(n)[1].lower() in pictures]
                files += [os.path.join(folder, name) for name in found]
    if not files:
        raise ValueError(f"predict: no image ({' '.join(sorted(SUFFIXES))}) in images={','.join(words)}")
    root = os.path.commonpath(roots)
    named = {Path(os.path.relpath(file, root)).as_posix(): file for file in files}
    taken = set(named)
    inputs = []
    for name, file in sorted(named.items()):
        picture = name
        if Path(name).suffix.lower() not in PICTURES:
            picture += ".png"
            while picture in taken:
                picture += ".png"
            taken.add(picture)
        inputs.append(InputImage(Path(file), name, out / picture))
    return inputs


def _holds_results(folder: str) -> bool:
    """Whether a prediction has written its tables there; a file with only the name of one may be somebody else's."""
    return any(all(_begins(os.path.join(folder, name), start) for name, start in table.items()) for table in TABLES)


def _begins(path: str, start: bytes) -> bool:
    if not os.path.isfile(path):  # a FIFO would be waited for
        return False
    try:
        with open(path, "rb") as file:
            return file.read(len(start)) == start
    except OSError:
        return False


def _describe_absence(path: Path, suffixes: Collection[str]) -> str:
    """Say that a path does not exist, and which of the images and folders there resembles it, or a few of them."""
    near = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.parent.is_dir())
    visible = (child for child in near.parent.iterdir() if child.name[0] != ".")
    there = sorted(child.name for child in visible if child.suffix.lower() in suffixes or child.is_dir())
    close = difflib.get_close_matches(near.name, there, n=1)
    said = f"; did you mean {close[0]!r}?" if close else ""
    if there and not close:
        more = f" and {len(there) - OFFERED} more" if len(there) > OFFERED else ""
        said = f", but {', '.join(there[:OFFERED])}{more}"
    return f"there is no {near.name!r} in {near.parent}{said or ', nor any image or folder'}"
