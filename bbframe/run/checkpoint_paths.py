"""The path of a checkpoint: a file, or a folder whose tensors are sharded over processes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from bbframe.files import sync

META = "meta.pt"  # in the folder: all but the tensors that are sharded


def is_sharded(path: Path) -> bool:
    """Whether a path is a checkpoint in a folder."""
    return (path / META).is_file()


def is_checkpoint(path: Path) -> bool:
    """Whether there is a checkpoint of this name, a file or a folder."""
    return path.is_file() or is_sharded(path)


def take_the_place(new: Path, path: Path) -> None:
    """Rename a checkpoint to the name that one of the other kind has: a folder for a file, or a file for a folder.

    No system renames one over the other, so in between the old one is called <stem>_before.ckpt.
    """
    before = path.with_name(f"{path.stem}_before{path.suffix}")
    _remove(before)  # a killed process has left it
    os.replace(path, before)
    os.replace(new, path)
    sync(path.parent)
    _remove(before)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
