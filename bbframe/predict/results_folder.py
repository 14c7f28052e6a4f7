"""The folder that takes the results of a prediction: how it is made, and what in it is never overwritten."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from bbframe.predict.input_images import TABLES, InputImage


def check_out(out: Path, inputs: Sequence[InputImage], overwrite: bool) -> None:
    """Raise ValueError if results in the folder `out` would overwrite files."""
    files = {os.path.realpath(image.path): image.path for image in inputs}
    home = os.path.realpath(out) + os.sep
    for file, path in files.items():
        if file.startswith(home):
            raise ValueError(f"predict: out={out} holds your image {path}; name another folder for the results")
    for image in inputs:
        if (lost := files.get(os.path.realpath(image.picture))) is not None:  # through a link
            raise ValueError(f"predict: out={out} would overwrite your image {lost}; name another folder")
    written = [out / name for table in TABLES for name in table] + [image.picture for image in inputs]
    if not overwrite and (present := [path for path in written if path.exists()]):
        raise ValueError(
            f"predict: out={out} holds results already ({present[0].relative_to(out)}); name another folder, or "
            "overwrite=true replaces them"
        )


@contextmanager
def results_folder(out: Path) -> Iterator[None]:
    """Make a folder, and remove it again if nothing is put into it. Raises ValueError if it cannot be made."""
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
