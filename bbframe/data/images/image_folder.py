"""Images in folders, one a class: every fault of the layout is told at once, before training."""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from bbframe.data.data_module import ImageDataModule
from bbframe.data.exclusion import read_exclusion
from bbframe.data.faults import Faults, Skipped, raise_all
from bbframe.data.images.folder_layout import (
    JUNK,
    inner_root,
    part_folders,
    part_of,
    parts_in_classes,
    subfolders,
    unspelled,
)
from bbframe.data.images.image_options import ImageFolderOptions
from bbframe.data.images.labelled_files import Files
from bbframe.data.packed_names import PackedNames
from bbframe.data.split import stratified
from bbframe.files import encodable
from bbframe.imaging.decode import (
    SUFFIXES,
    UNREADABLE,
    Decoding,
    glance,
    reason,
)
from bbframe.imaging.deep_pixels import significant_bits


class ImageFolder(ImageDataModule):
    """Classes are the sub-folders in alphabetical order; images may lie at any depth below them.

    The classes are expected under `root`, or under the only folder in it. When there is a folder train/ (or training/,
    Train_set/, train2017/ ...) with sub-folders, they are expected under train/, val/ (or valid/, validation/, dev/)
    and test/ (or testing/), and other folders beside these are left out. Each class may have folders of parts instead:
    cat/train, cat/val. A part without a folder is a seeded share of each class in train. Files whose name begins with
    a dot are not seen; `ignored` counts the other files whose suffix is not an image's.
    """

    def __init__(self, options: ImageFolderOptions, **settings: Any):
        scan = Scan(Path(options.root or ""), options)
        options = replace(options, bits=scan.decoding.bits)
        told: dict[str, Any] = {"skipped": scan.skipped, "exclusion": scan.exclusion}
        super().__init__(options, scan.parts, scan.class_names, **told, **settings)
        self.ignored = scan.ignored


class Scan:
    """What a folder holds: `parts`, `class_names`, the `skipped` images, and how many files were `ignored`.

    Raises FaultsError with all faults of the layout and, unless they are to be skipped, all broken files.
    """

    def __init__(self, root: Path, options: ImageFolderOptions):
        if not root.is_dir():
            what = "is a file" if root.exists() else "does not exist"
            raise ValueError(f"data: root={str(root)!r} {what}; it must be the folder with your images")
        self.root, self.options = inner_root(root), options
        self.faults = Faults(self.root, options.on_error == "skip")
        if self.root != root:
            self.faults.assume("roots that hold one other folder, which is read (data.root=...)", str(self.root))
        self.exclusion = read_exclusion(options.exclude)
        self.ignored = 0
        self.others: Counter[str] = Counter()  # images below each folder of a class that cannot be decoded
        self.owners: dict[str, tuple[int, str]] = {}  # where an image lies, the class it was found in, and its folder
        self.places: dict[str, str] = {}  # where folders lie, links followed
        self.peaks: list[int] = []  # the largest value of each 16-bit image
        self.decoding = Decoding.of(options)
        folders = self._part_folders()
        self.class_names = subfolders(self.root / folders["train"])
        places = {} if folders["train"] else parts_in_classes(self.root, self.faults)
        parted = bool(folders["train"] or places)
        if not parted:
            for name in self.class_names:
                if part_of(name):
                    self.faults.assume("folders called like a part, and taken for a class", name)
        places = self._check_classes(folders, places)
        for name in self.class_names:
            if name != encodable(name):
                self.faults.assume("classes whose folders have names that are no UTF-8, spelled out", name)
        self.class_names = [encodable(name) for name in self.class_names]
        self._check_fractions(places, folders)
        found = {part: self._files(folders.get(part, ""), places[part]) for part in places}
        raise_all([self.faults])
        if self.peaks and options.bits is None:
            bits = significant_bits(max(self.peaks))
            self.decoding = replace(self.decoding, bits=bits)
            what = f"sets of 16-bit images read as {bits} bits (data.bits={bits}), whose largest value is"
            self.faults.assume(what, str(max(self.peaks)))
        for files in found.values():
            files.decoding = self.decoding
        self.parts = self._divide(found, test=0.0 if parted else 0.15)
        self.skipped = Skipped(options.tolerated_errors)
        self.skipped.assume(self.faults.assumed)
        self.skipped.note([(encodable(str(self.root / path)), why) for _, path, why in self.faults.dropped])

    def _part_folders(self) -> dict[str, str]:
        """As `part_folders`, without parts whose images have no class; "" is the root itself."""
        chosen = part_folders(self.root, self.faults)
        for part in [part for part in ("val", "test") if part in chosen]:
            folder, there = chosen[part], subfolders(self.root / chosen[part])
            classes = {unspelled(name) for name in subfolders(self.root / chosen["train"])}
            if (not there or (len(there) == 1 and unspelled(there[0]) not in classes)) and self._walk(folder):
                what = "folders whose images have no class, so that they are left out (`bbframe predict` takes them)"
                self.faults.assume(what, f"{folder}/")
                del chosen[part]
        return chosen

    def _check_fractions(self, places: dict[str, dict[int, str]], folders: dict[str, str]) -> None:
        """A part that has folders takes no share of train."""
        for part in [part for part in ("val", "test") if part in places]:
            if (fraction := getattr(self.options, f"{part}_fraction")) is not None:
                where = folders.get(part) or next(iter(places[part].values()))
                self.faults.fatal(f"it has {where}/, so data.{part}_fraction={fraction} must be null")

    def _check_classes(self, folders: dict[str, str], inside: dict[str, dict[int, str]]) -> dict[str, dict[int, str]]:
        """The folder of each class, {part: {class: path}}; a part may lack some.

        `inside` are the folders of parts that lie in those of the classes.
        """
        if len(self.class_names) < 2:
            where = f"{folders['train']}/ in it has" if folders["train"] else "it has"
            what = f"only one class folder, {self.class_names[0]!r}" if self.class_names else "no class folders"
            self.faults.fatal(f"{where} {what}; put the images of each class into a sub-folder of its own")
        places = inside or {part: self._find_classes(folder) for part, folder in folders.items()}
        for part, found in places.items():
            for label, name in enumerate(self.class_names):
                if label not in found:
                    self.faults.assume(f"classes of train that {folders.get(part, part)}/ lacks", name)
        return places

    def _find_classes(self, folder: str) -> dict[int, str]:
        """The folders of classes in the folder of a part, {class: path}."""
        places: dict[int, str] = {}
        by_name = {unspelled(name): name for name in self.class_names}
        for name in subfolders(self.root / folder):
            known = name if name in self.class_names else by_name.get(unspelled(name))
            path = f"{folder}/{name}" if folder else name
            if known is None and self.faults.skip:
                self.faults.drop("images of a class that train lacks", path, "train has no such class")
            elif known is None:
                self.faults.drop(f"{folder}/ has classes that train/ lacks", name)
            else:
                places[self.class_names.index(known)] = path
                if known != name:
                    self.faults.assume("class folders spelled otherwise than in train", f"{path} ({known})")
        return places

    def _files(self, folder: str, places: dict[int, str]) -> Files:
        """All images of one part; a class folder without any is a fault."""
        labels: array[int] = array("q")
        with os.scandir(self.root / folder) as entries:
            loose = sorted(entry.name for entry in entries if entry.is_file() and _is_image(entry.name))
        for name in loose:
            path = f"{folder}/{name}" if folder else name
            self.faults.assume("images outside of the class folders, which are left out", path)

        def readable() -> Iterator[str]:
            for label, prefix in sorted(places.items()):
                before = len(labels)
                for path in self._walk(prefix):
                    if self._own(path, label, prefix) and self._readable(path):
                        labels.append(label)
                        yield path
                if len(labels) == before:
                    others = f" ({self.others[prefix]} that cannot be decoded)" if self.others[prefix] else ""
                    what = f"no readable images ({' '.join(sorted(SUFFIXES))}) in these folders"
                    self.faults.fatal(what, prefix + others)

        return Files(self.root, PackedNames.of(readable()), labels)

    def _walk(self, prefix: str) -> list[str]:
        """The files below a folder whose suffix is an image's, sorted."""
        paths = []
        for folder, names, twice in walk_once(self.root / prefix):
            below = Path(folder).relative_to(self.root).as_posix()
            for link in twice:
                name = Path(link).relative_to(self.root).as_posix()
                self.faults.assume("links to a folder that is read already, which are not followed", name)
            visible = [name for name in names if not name.startswith(".")]
            images = [name for name in visible if _is_image(name)]
            self.ignored += len(visible) - len(images)
            for name in visible:
                if (suffix := os.path.splitext(name)[1].lower()) in UNREADABLE:
                    self.others[prefix] += 1
                    what = f"{suffix} files, which cannot be decoded and are left out (convert them to PNG or JPEG)"
                    self.faults.assume(what, f"{below}/{name}")
            paths += [f"{below}/{name}" for name in images]
        return sorted(paths)

    def _own(self, path: str, label: int, prefix: str) -> bool:
        """Whether no link puts an image into another class too."""
        owner, folder = self.owners.setdefault(self._place(path), (label, prefix))
        if owner != label:
            self.faults.drop("images that links put into two classes", path, f"also in {folder}")
        elif folder != prefix:
            self.faults.assume("images that links put into two parts", path)
        return owner == label

    def _place(self, path: str) -> str:
        """`os.path.realpath` of an image, which asks the disk about every folder above it; here each is asked once."""
        folder, _, name = path.rpartition("/")
        if folder not in self.places:
            self.places[folder] = os.path.realpath(self.root / folder)
        place = f"{self.places[folder]}{os.sep}{name}"
        return os.path.realpath(place) if os.path.islink(place) else place

    def _readable(self, path: str) -> bool:
        if not self.options.verify or self.exclusion.names(path, self.root):
            return True  # one that is left out takes part in the split, so that the others stay where they are
        try:
            facts = glance(os.path.join(self.root, path), self.decoding)
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
    for folder, below, names in os.walk(root, followlinks=True):
        kept: list[str] = []
        twice: list[str] = []
        for name in sorted(below):
            if name.startswith(".") or name.lower() in JUNK:
                continue
            path = os.path.join(folder, name)
            if left_out(path):
                continue
            place = os.path.realpath(path)
            again = place in seen or f"{top}{os.sep}".startswith(f"{place.rstrip(os.sep)}{os.sep}")
            (twice if again else kept).append(path if again else name)
            seen.add(place)
        below[:] = kept
        yield folder, names, twice


def _is_image(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES
