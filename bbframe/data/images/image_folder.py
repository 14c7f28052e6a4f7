"""Images in folders, one a class: every fault of the layout is told at once, before training."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from bbframe.data.data_module import ImageDataModule
from bbframe.data.decode import AS_USUAL, SUFFIXES, Decoding, glance, read_image, reason, significant_bits
from bbframe.data.faults import Faults, Skipped, raise_all
from bbframe.data.images.image_options import ImageFolderOptions
from bbframe.data.split import stratified

PART_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
# what operating systems and archives leave behind
JUNK = {"__macosx", "lost+found", "$recycle.bin", "system volume information", "@eadir", "__pycache__"}


@dataclass
class Files:
    """Image files and their labels, paths relative to `root` and written with slashes."""

    root: Path
    paths: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    decoding: Decoding = AS_USUAL

    def read(self, index: int) -> Image.Image:
        return read_image(self.root / self.paths[index], self.decoding)

    def name(self, index: int) -> str:
        return str(self.root / self.paths[index])

    def select(self, indices: Sequence[int]) -> Files:
        return replace(self, paths=[self.paths[i] for i in indices], labels=[self.labels[i] for i in indices])


class ImageFolder(ImageDataModule):
    """Classes are the sub-folders in alphabetical order; images may lie at any depth below them.

    The classes are expected under `root`. When `root` has a folder train/ (or training/, Train_set/ ...) with
    sub-folders, they are expected under train/, val/ (or valid/, validation/, dev/) and test/ (or testing/), and other
    folders beside these are left out. A part without a folder is a seeded share of each class in train. Files whose
    name begins with a dot are not seen; `ignored` counts the other files whose suffix is not an image's.
    """

    def __init__(self, options: ImageFolderOptions, **settings: Any):
        scan = Scan(Path(options.root or ""), options)
        options = replace(options, bits=scan.decoding.bits)
        super().__init__(options, scan.parts, scan.class_names, skipped=scan.skipped, **settings)
        self.ignored = scan.ignored


class Scan:
    """What a folder holds: `parts`, `class_names`, the `skipped` images, and how many files were `ignored`.

    Raises FaultsError with all faults of the layout and, unless they are to be skipped, all broken files.
    """

    def __init__(self, root: Path, options: ImageFolderOptions):
        self.root, self.options = root, options
        self.faults = Faults(root, options.on_error == "skip")
        self.ignored = 0
        self.owners: dict[str, str] = {}  # where an image lies, and the folder of the class that it was found in
        self.peaks: list[int] = []  # the largest value of each 16-bit image
        self.decoding = Decoding.of(options)
        if not root.is_dir():
            what = "is a file" if root.exists() else "does not exist"
            raise ValueError(f"data: root={str(root)!r} {what}; it must be the folder with your images")
        folders = self._part_folders()
        self.class_names = _subfolders(root / folders["train"])
        if not folders["train"]:
            for name in self.class_names:
                if _part_of(name):
                    self.faults.assume("folders called like a part, and taken for a class", name)
        places = self._check_classes(folders)
        found = {part: self._files(folders[part], places[part]) for part in places}
        raise_all([self.faults])
        if self.peaks and options.bits is None:
            bits = significant_bits(max(self.peaks))
            self.decoding = replace(self.decoding, bits=bits)
            what = f"sets of 16-bit images read as {bits} bits (data.bits={bits}), whose largest value is"
            self.faults.assume(what, str(max(self.peaks)))
        for files in found.values():
            files.decoding = self.decoding
        self.parts = self._divide(found, test=0.0 if folders["train"] else 0.15)
        self.skipped = Skipped(options.tolerated_errors)
        self.skipped.assume(self.faults.assumed)
        self.skipped.note([(str(root / path), why) for _, path, why in self.faults.dropped])

    def _part_folders(self) -> dict[str, str]:
        """The folder, relative to the root, of each part that has one; "" is the root itself."""
        present = _subfolders(self.root)
        named = {part: [name for name in present if _part_of(name) == part] for part in PART_NAMES}
        strangers = [name for name in present if not _part_of(name)]
        if not any(_subfolders(self.root / name) for name in named["train"]):
            if present and not strangers:
                self.faults.fatal(f"it has {', '.join(present)}, but no train/ with one sub-folder a class")
                raise_all([self.faults])
            for name in (name for names in named.values() for name in names):
                if set(_subfolders(self.root / name)) & set(strangers):
                    self.faults.fatal(f"{name}/ has class folders too; move those for training into train/")
            return {"train": ""}
        for name in strangers:
            self.faults.assume("folders beside those of the parts, which are left out", name)
        for part, names in named.items():
            if len(names) > 1:
                names.sort(key=PART_NAMES[part].index if set(names) <= set(PART_NAMES[part]) else None)
                self.faults.fatal(f"{' and '.join(names)} both name the {part} images; keep one")
        chosen = {part: names[0] for part, names in named.items() if names}
        for part in [part for part in ("val", "test") if part in chosen]:
            folder, there = chosen[part], _subfolders(self.root / chosen[part])
            classes = {_plain(name) for name in _subfolders(self.root / chosen["train"])}
            if (not there or (len(there) == 1 and _plain(there[0]) not in classes)) and self._walk(folder):
                what = "folders whose images have no class, so that they are left out (`bbframe predict` takes them)"
                self.faults.assume(what, f"{folder}/")
                del chosen[part]
            elif (fraction := getattr(self.options, f"{part}_fraction")) is not None:
                self.faults.fatal(f"it has {folder}/, so data.{part}_fraction={fraction} must be null")
        return chosen

    def _check_classes(self, folders: dict[str, str]) -> dict[str, dict[int, str]]:
        """The folder of each class, {part: {class: path}}; a part may lack some."""
        if len(self.class_names) < 2:
            where = f"{folders['train']}/ in it has" if folders["train"] else "it has"
            what = f"only one class folder, {self.class_names[0]!r}" if self.class_names else "no class folders"
            self.faults.fatal(f"{where} {what}; put the images of each class into a sub-folder of its own")
        places: dict[str, dict[int, str]] = {}
        by_name = {_plain(name): name for name in self.class_names}
        for part, folder in folders.items():
            places[part] = {}
            for name in _subfolders(self.root / folder):
                known = name if name in self.class_names else by_name.get(_plain(name))
                path = f"{folder}/{name}" if folder else name
                if known is None and self.faults.skip:
                    self.faults.drop("images of a class that train lacks", path, "train has no such class")
                elif known is None:
                    self.faults.fatal(f"{folder}/ has classes that train/ lacks", name)
                else:
                    places[part][self.class_names.index(known)] = path
                    if known != name:
                        self.faults.assume("class folders spelled otherwise than in train", f"{path} ({known})")
            for label, name in enumerate(self.class_names):
                if label not in places[part]:
                    self.faults.assume(f"classes of train that {folder}/ lacks", name)
        return places

    def _files(self, folder: str, places: dict[int, str]) -> Files:
        """All images of one part; a class folder without any is a fault."""
        files = Files(self.root)
        with os.scandir(self.root / folder) as entries:
            loose = sorted(entry.name for entry in entries if entry.is_file() and _is_image(entry.name))
        for name in loose:
            path = f"{folder}/{name}" if folder else name
            self.faults.assume("images outside of the class folders, which are left out", path)
        for label, prefix in sorted(places.items()):
            paths = [path for path in self._walk(prefix) if self._own(path, prefix) and self._readable(path)]
            files.paths += paths
            files.labels += [label] * len(paths)
            if not paths:
                self.faults.fatal(f"no readable images ({' '.join(sorted(SUFFIXES))}) in these folders", prefix)
        return files

    def _walk(self, prefix: str) -> list[str]:
        """The files below a folder whose suffix is an image's, sorted."""
        paths = []
        for folder, names, twice in walk_once(self.root / prefix):
            for link in twice:
                name = Path(link).relative_to(self.root).as_posix()
                self.faults.assume("links to a folder that is read already, which are not followed", name)
            visible = [name for name in names if not name.startswith(".")]
            images = [name for name in visible if _is_image(name)]
            self.ignored += len(visible) - len(images)
            paths += [Path(folder, name).relative_to(self.root).as_posix() for name in images]
        return sorted(paths)

    def _own(self, path: str, prefix: str) -> bool:
        """Whether no link puts an image into another class too."""
        owner = self.owners.setdefault(os.path.realpath(self.root / path), prefix)
        if owner == prefix:
            return True
        if owner.split("/")[-1] == prefix.split("/")[-1]:
            self.faults.assume("images that links put into two parts", path)
            return True
        self.faults.drop("images that links put into two classes", path, f"also in {owner}")
        return False

    def _readable(self, path: str) -> bool:
        if not self.options.verify:
            return True
        try:
            facts = glance(self.root / path, self.decoding)
        except Exception as error:  # a decoder may raise anything on a broken file
            self.faults.drop("unreadable", path, reason(error))
            return False
        for what in facts.assumed:
            if facts.peak is None:
                self.faults.assume(what, str(self.root / path))
        self.peaks += [] if facts.peak is None else [facts.peak]
        return True

    def _divide(self, found: dict[str, Files], test: float) -> dict[str, Files]:
        """Take the parts that have no folder out of train."""
        fractions = self.options.fractions(found, test)
        train = found["train"]
        counts = Counter(train.labels)
        parts = ", ".join(("train", *fractions))
        fix = "add images" + (" or set data.test_fraction=0" if "test" in fractions else "")
        if max(counts.values(), default=0) <= len(fractions):
            self.faults.fatal(f"too few images to split into {parts} ({fix})", str(len(train.paths)))
        raise_all([self.faults])
        for label, name in enumerate(self.class_names):
            if counts[label] <= len(fractions):
                what = f"classes with too few images to be in each of {parts} ({fix})"
                self.faults.assume(what, f"{name!r} ({counts[label]})")
        split = stratified(train.paths, train.labels, fractions, self.options.split_seed)
        return {**found, **{part: train.select(indices) for part, indices in split.items()}}


def walk_once(
    root: str | Path, left_out: Callable[[str], bool] = lambda path: False
) -> Iterator[tuple[str, list[str], list[str]]]:
    """As `os.walk`, links followed, each visible folder once: its path, files, and links to folders that are skipped.

    A link to a folder above `root` would hold `root` itself. `left_out` says which folders are not entered.
    """
    top = os.path.realpath(root)
    seen = {top}
    for folder, subfolders, names in os.walk(root, followlinks=True):
        kept: list[str] = []
        twice: list[str] = []
        for name in sorted(subfolders):
            if name.startswith(".") or name.lower() in JUNK:
                continue
            path = os.path.join(folder, name)
            if left_out(path):
                continue
            place = os.path.realpath(path)
            again = place in seen or f"{top}{os.sep}".startswith(f"{place.rstrip(os.sep)}{os.sep}")
            (twice if again else kept).append(path if again else name)
            seen.add(place)
        subfolders[:] = kept
        yield folder, names, twice


def _is_image(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES


def _plain(name: str) -> str:
    """A class's name without its spelling."""
    return "".join(name.split()).casefold()


def _part_of(folder: str) -> str | None:
    """The part that a folder's name means, such as "Training" or "test_set"."""
    name = re.sub(r"[ _-]?(set|data|images|split)$", "", folder.casefold())
    return next((part for part, names in PART_NAMES.items() if name in names), None)


def _subfolders(folder: Path) -> list[str]:
    """The visible sub-folders' names, sorted; none when there is no such folder."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        found = [entry.name for entry in entries if entry.is_dir()]
    return sorted(name for name in found if not name.startswith(".") and name.lower() not in JUNK)
