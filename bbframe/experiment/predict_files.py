"""The files of a prediction: the checkpoint, the images that are named, and the folder that takes the results."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bbframe.experiment.record import read_record
from bbframe.options import nearest

RESULTS = ("predictions.csv", "predictions.json", "images.json")
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

    Hidden files are left out, and `out` when it holds the results of an earlier prediction. ValueError when a path
    does not exist or there is no image.
    """
    from bbframe.data.image_folder import SUFFIXES

    earlier = os.path.realpath(out) if any((out / name).is_file() for name in RESULTS) else None
    files: list[str] = []
    roots: list[str] = []
    for word in words:
        given = [word] if os.path.exists(word) else sorted(glob.glob(word, recursive=True))
        if not given:
            raise ValueError(f"predict: images={word}: {_absent(Path(word))}")
        for path in given:
            roots.append(os.path.abspath(path if os.path.isdir(path) else os.path.dirname(path)))
            if not os.path.isdir(path):
                files.append(path)
            for folder, subfolders, names in os.walk(path, followlinks=True):
                visible = [name for name in subfolders if name[0] != "."]
                subfolders[:] = [name for name in visible if os.path.realpath(os.path.join(folder, name)) != earlier]
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


def _absent(path: Path) -> str:
    """That a path does not exist, and what is there that resembles it."""
    near = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.parent.is_dir())
    there = [child.name for child in near.parent.iterdir()]
    return f"there is no {near.name!r} in {near.parent}{nearest(near.name, there) if there else ', which is empty'}"


def check_out(out: Path, inputs: Sequence[Input], overwrite: bool) -> None:
    """Make the folder of the results; ValueError if that cannot be, or if files would be lost."""
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
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"predict: out={out}: cannot make this folder ({error.strerror})") from error
