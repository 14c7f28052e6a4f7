"""Where the annotations of a set lie in Pascal VOC's folders, and which of them are the set's."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from xml.etree import ElementTree

from bbframe.data.boxes.voc_pages import Page, read_page

XML = "*.[xX][mM][lL]"


class Documents:
    """The `pages` of a set by their names, the `broken` ones and why, and what is wrong with its `list`.

    The name of a page is its path below the folder of the annotations, without the suffix. Without a list the set is
    all annotations of its folder. `images` is where their images should be.
    """

    def __init__(self, root: Path, part: str, name: str):
        self.root, self.part, self.name = root, part, name
        self.file = root / "ImageSets" / "Main" / f"{name}.txt"
        self.pages: dict[str, Page] = {}
        self.broken: dict[str, str] = {}
        self.list: list[str] = []
        self.assumed: list[tuple[str, str]] = []
        home = root
        if has_lists(root) or (found := annotation_folder(root, name)) is None:
            found = next((root / name for name in ("Annotations", "annotations") if (root / name).is_dir()), None)
            found = found or root / "Annotations"
            files = annotation_files(found, deep=True)
            names = self._listed(files)
        else:
            home = root / name if (root / name).is_dir() else root
            what = "folders without a list in ImageSets/Main, of which all annotations are taken"
            self.assumed.append((what, f"{home}"))
            files = annotation_files(found, deep=found != home)
            names, self.file = sorted(files), home
        self.prefix = "" if found == home else f"{found.name}/"
        places = [home / name for name in ("JPEGImages", "images", "Images", "imgs")]
        self.images = next((place for place in places if place.is_dir()), found if self.file == home else places[0])
        for page in names:
            self._read(page, files.get(page))

    def _read(self, name: str, file: Path | None) -> None:
        if file is None:
            self.broken[name] = "no such file or directory"
            return
        try:
            self.pages[name] = read_page(file)
        except (OSError, ElementTree.ParseError, ValueError, LookupError, RecursionError) as error:
            self.broken[name] = (getattr(error, "strerror", None) or str(error)).lower()

    def _listed(self, files: dict[str, Path]) -> list[str]:
        """The names of the annotations that the list of images means."""
        try:
            raw = self.file.read_bytes()
            lines = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            why = f"cannot be read: {getattr(error, 'strerror', None) or 'no text'}".lower()
            self.list.append(why + (self._advice() if isinstance(error, FileNotFoundError) else ""))
            return []
        by_name: dict[str, list[str]] = {}
        for name in files:
            by_name.setdefault(os.path.basename(name), []).append(name)
        found = (self._meant(line, files, by_name) for line in map(str.strip, lines) if line)
        return list(dict.fromkeys(name for name in found if name is not None))

    def _meant(self, line: str, files: dict[str, Path], by_name: dict[str, list[str]]) -> str | None:
        """The annotation that a line of the list means; a fault and None for a path that leads elsewhere."""
        # a name may hold spaces, and a number behind it says if the image shows a class
        tried = [line, re.sub(r"\s+-?[01]$", "", line)]
        tried = [name.replace("\\", "/") for name in tried]
        tried += [os.path.splitext(name)[0] for name in tried]
        if ".." in tried[0].split("/"):
            self.list.append(f"{tried[-1]!r} is no name of an image; write {os.path.basename(tried[-1])!r}")
            return None
        for name in tried:
            if name in files:
                return name
            if len(same := by_name.get(os.path.basename(name), [])) == 1:
                if "/" in name:
                    self.assumed.append(("lists with paths, of which the names of the files are taken", line))
                return same[0]
        return os.path.basename(tried[-1]) if "/" in line or "\\" in line else line.split()[0]

    def _advice(self) -> str:
        """What to type instead of a list that is not there."""
        lists = sorted(file.stem for file in self.file.parent.glob("*.txt"))
        lists = [name for name in lists if "_" not in name] or lists  # the others name a class
        if not lists:
            return f" (data.root={self.root} must be the folder with Annotations/)"
        if near := difflib.get_close_matches(self.name, lists, 1):
            return f" (set data.{self.part}_set={near[0]})"
        ways = f" to one of {', '.join(lists[:5])}" if self.part == "train" else "=null"
        return f" (set data.{self.part}_set{ways})"


def has_lists(root: Path) -> bool:
    """Whether there are lists of images, as in Pascal VOC."""
    return any((root / "ImageSets" / "Main").glob("*.txt"))


def annotation_folder(root: Path, part: str | None = None) -> Path | None:
    """Where annotations without a list lie: in the folder of a `part`, in Annotations/, or beside the images."""
    homes = [root / part, root] if part and (root / part).is_dir() else [root]
    homes += [root / "train"] if part is None else []
    for home in homes:
        for name in ("Annotations", "annotations", "labels", "xmls"):
            if any((home / name).rglob(XML)):
                return home / name
        if any(home.glob(XML)):
            return home
    return None


def annotation_files(folder: Path, deep: bool) -> dict[str, Path]:
    """The XML files of a folder, and with `deep` of those below it, by their names without the suffix."""
    found = folder.rglob(XML) if deep else folder.glob(XML)
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in sorted(found)}


def voc_folder(root: Path) -> tuple[Path, list[tuple[str, str]]]:
    """The folder with Annotations/, at most two levels below `root`, and what that assumes.

    Raises ValueError when there are several.
    """
    if has_lists(root) or annotation_folder(root) is not None:
        return root, []
    level, found = [root], list[Path]()
    for _ in range(2):
        level = [folder for above in level for folder in _folders(above)]
        found += [folder for folder in level if has_lists(folder) or (folder / "Annotations").is_dir()]
    if len(found) > 1:
        ways = " or ".join(f"data.root={folder}" for folder in found[:5])
        raise ValueError(f"data: root={str(root)!r} holds {len(found)} folders with Annotations/; set {ways}")
    if not found:
        return root, []
    return found[0], [("folders above the one with Annotations/, which is taken", f"{found[0]}")]


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(Path(entry.path) for entry in os.scandir(folder) if entry.is_dir())
    except OSError:
        return []
