"""The files of a prediction: the checkpoint, the images that are named, and the folder that takes the results."""

from __future__ import annotations

import difflib
import glob
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bbframe.run.record import read_record

RESULTS = ("predictions.csv", "predictions.json", "images.json")
# how they begin when a prediction has written them: of classes, and of boxes
TABLES = (
    {"predictions.csv": b"image,predicted,probability"},
    {"predictions.json": b"[", "images.json": b'{\n "images": ['},
)
FEW = 5  # names that an error offers
PICTURES = (".jpg", ".jpeg", ".png")  # a picture of any other image has .png appended to the image's name


@dataclass(frozen=True)
class Input:
    """An image file; what its results call it, a path relative to all images' common folder; its picture's path."""

    path: Path
    name: str
    picture: Path


def find_checkpoint(run: Path) -> Path:
    """The checkpoint file of a run: best.ckpt, else last.ckpt. ValueError for what is no run, or has none."""
    if run.is_file():
        return run
    read_record(run)
    for name in ("best.ckpt", "last.ckpt"):
        if (path := run / "checkpoints" / name).is_file():
            return path
    raise ValueError(
        f"{run}: the run left no checkpoints/best.ckpt or last.ckpt, as with debug=true or train=false; give another"
    )


def find_images(words: Sequence[str], out: Path) -> list[Input]:
    """The image files that some paths and patterns name, folders with all that is below them, in sorted order.

    Hidden files are left out, and folders below those named that hold the results of an earlier prediction.
    ValueError when a path does not exist or there is no image.
    """
    from bbframe.data.images.image_folder import SUFFIXES

    files: list[str] = []
    roots: list[str] = []
    for word in words:
        given = [word] if os.path.exists(word) else sorted(glob.glob(word, recursive=True))
        if not given:
            raise ValueError(f"predict: images={word}: {_absent(Path(word), SUFFIXES)}")
        for path in given:
            roots.append(os.path.abspath(path if os.path.isdir(path) else os.path.dirname(path)))
            if not os.path.isdir(path):
                files.append(path)
            for folder, subfolders, names in os.walk(path, followlinks=True):
                visible = [name for name in subfolders if name[0] != "."]
                subfolders[:] = [name for name in visible if not _holds_results(os.path.join(folder, name))]
                found = [n for n in names if n[0] != "." and os.path.splitext(n)[1].lower() in SUFFIXES]
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
        inputs.append(Input(Path(file), name, out / picture))
    return inputs


def _holds_results(folder: str) -> bool:
    """Whether a prediction has written its tables there; a file of that name alone may be somebody else's."""
    return any(all(_begins(os.path.join(folder, name), start) for name, start in table.items()) for table in TABLES)


def _begins(path: str, start: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(start)) == start
    except OSError:
        return False


def _absent(path: Path, suffixes: Collection[str]) -> str:
    """That a path does not exist, and which of the images and folders there resembles it, or a few of them."""
    near = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.parent.is_dir())
    visible = (child for child in near.parent.iterdir() if child.name[0] != ".")
    there = sorted(child.name for child in visible if child.suffix.lower() in suffixes or child.is_dir())
    close = difflib.get_close_matches(near.name, there, n=1)
    said = f"; did you mean {close[0]!r}?" if close else ""
    if there and not close:
        more = f" and {len(there) - FEW} more" if len(there) > FEW else ""
        said = f", but {', '.join(there[:FEW])}{more}"
    return f"there is no {near.name!r} in {near.parent}{said or ', nor any image or folder'}"


def check_out(out: Path, inputs: Sequence[Input], overwrite: bool) -> None:
    """Raises ValueError if results in the folder `out` would overwrite files."""
    files = {os.path.realpath(image.path): image.path for image in inputs}
    home = os.path.realpath(out) + os.sep
    for file, path in files.items():
        if file.startswith(home):
            raise ValueError(f"predict: out={out} holds your image {path}; name another folder for the results")
    for image in inputs:
        if (lost := files.get(os.path.realpath(image.picture))) is not None:  # by a link
            raise ValueError(f"predict: out={out} would overwrite your image {lost}; name another folder")
    present = [path for path in (*(out / name for name in RESULTS), *(i.picture for i in inputs)) if path.exists()]
    if present and not overwrite:
        raise ValueError(
            f"predict: out={out} holds results already ({present[0].relative_to(out)}); name another folder, or "
            "overwrite=true replaces them"
        )


@contextmanager
def folder_of_results(out: Path) -> Iterator[None]:
    """Make a folder, and remove what was made if nothing is put into it. ValueError if it cannot be made."""
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"predict: out={out}: cannot make this folder ({error.strerror})") from error
    try:
        yield
    finally:
        for folder in made:
            with suppress(OSError):  # it is not empty
                folder.rmdir()
