"""The image files below a folder, found by what annotations call them."""

from __future__ import annotations

import functools
import os
import re
import unicodedata
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from bbframe.imaging.decode import SUFFIXES

SPELLING = "images found under another spelling of their name"
SUFFIX = "images found with another suffix"
FOLDER = "images found in another folder than is said"


class Found(NamedTuple):
    """A path below the folder; `assumed` says how it differs from the one asked for, `absent` why no file is there.

    `leaves`: what was asked for leads out of the folder.
    """

    path: str
    assumed: str = ""
    absent: str = ""
    leaves: bool = False


class _Index(NamedTuple):
    """What lies below a folder, by spelling: a path is None where several files differ in nothing else."""

    paths: dict[str, str | None]
    stems: dict[str, str | None]  # images without their suffix
    names: dict[str, list[str]]  # the paths of each file name
    folders: set[str]


class ImagePaths:
    """The files below `root`. They are listed when a path is not found as it is written."""

    def __init__(self, root: Path):
        self.root = root

    def find(self, path: str) -> Found:
        """The file that a path means, which another machine may have written.

        Small and capital letters, Unicode's forms, backslashes and %20 make no difference. Leading folders may be left
        out where no folder below the root bears one of their names and the file's name is unique. A suffix may differ.
        """
        if "\0" in path:
            return Found(path, absent="no such file or directory")
        names = re.split(r"[/\\]", re.sub(r"^\w:", "/", path))
        leaves = ".." in names or names[0] == ""
        inside = os.path.relpath(self.root / path, self.root) if leaves else os.path.normpath(path)
        if not inside.startswith(f"..{os.sep}") and os.path.isfile(self.root / inside):
            return Found(inside)
        last = max((place + 1 for place, name in enumerate(names) if name == ".."), default=0)
        names = [name for name in names[last:] if name not in ("", ".")]
        written = "/".join(names)
        for place in range(len(names)):
            found = self._spelled("/".join(names[place:]))
            if found and (place == 0 or self._free(names[:place], found)):
                return Found(found, FOLDER if place else SPELLING)
        if found := self._other_suffix(written):
            return Found(found, SUFFIX)
        return Found(written or path, absent=self._why_absent(written), leaves=leaves)

    def _spelled(self, path: str) -> str | None:
        if os.path.isfile(self.root / path):
            return path
        return self._regular(self._index.paths.get(_key(path)) or self._index.paths.get(_key(unquote(path))))

    def _regular(self, path: str | None) -> str | None:
        """The path if a file lies there, not a pipe or a device, which have no end."""
        return path if path and os.path.isfile(self.root / path) else None

    def _free(self, folders: list[str], found: str) -> bool:
        """Whether a file may be meant although it is not in the folders that are said."""
        known = any(_key(name) in self._index.folders for name in folders)
        return not known and ("/" in found or len(self._index.names[_key(found)]) == 1)

    def _other_suffix(self, path: str) -> str | None:
        stem, suffix = os.path.splitext(path)
        known = re.fullmatch(r"\.[A-Za-z]\w{2,3}", suffix)  # v1.0.a has none
        stems = self._index.stems
        return self._regular(stems.get(_key(path)) or (stems.get(_key(stem)) if known else None))

    def _why_absent(self, path: str) -> str:
        others = self._index.names.get(_key(os.path.basename(path)), [])
        if os.path.exists(self.root / path):
            return "is no regular file"
        if len(others) > 1:
            return f"no such file, and {len(others)} others of that name"
        return f"no such file; one of that name is {others[0]}" if others else "no such file or directory"

    @functools.cached_property
    def _index(self) -> _Index:
        index = _Index({}, {}, {}, set())
        for folder, folders, files in os.walk(self.root):
            index.folders.update(map(_key, folders))
            prefix = os.path.relpath(folder, self.root)
            for name in files:
                path = name if prefix == "." else f"{prefix}/{name}"
                stem, suffix = os.path.splitext(_key(path))
                index.names.setdefault(_key(name), []).append(path)
                index.paths[_key(path)] = None if _key(path) in index.paths else path
                if suffix in SUFFIXES:
                    index.stems[stem] = None if stem in index.stems else path
        return index


def _key(path: str) -> str:
    """What spellings of a name have in common."""
    return unicodedata.normalize("NFC", path).lower()
