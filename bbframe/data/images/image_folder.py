"""Images in folders, one a class: every fault of the layout is told at once, before training."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from bbframe.data.data_module import ImageDataModule
from bbframe.data.decode import glance, read_image, reason
from bbframe.data.faults import Faults, Skipped, raise_all
from bbframe.data.images.image_options import ImageFolderOptions
from bbframe.data.split import stratified

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
PART_NAMES = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


@dataclass
class Files:
    """Image files and their labels, paths relative to `root` and written with slashes."""

    root: Path
    paths: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)

    def read(self, index: int) -> Image.Image:
        return read_image(self.root / self.paths[index])

    def name(self, index: int) -> str:
        return str(self.root / self.paths[index])

    def select(self, indices: Sequence[int]) -> Files:
        return Files(self.root, [self.paths[i] for i in indices], [self.labels[i] for i in indices])


class ImageFolder(ImageDataModule):
    """Classes are the sub-folders in alphabetical order; images may lie at any depth below them.

    The classes are expected under `root`. When `root` has a folder train/ with sub-folders, they are expected under
    train/, val/ (or valid/, validation/) and test/, and other folders beside these are left out. A part without a
    folder is a seeded share of each class in train. Files whose name begins with a dot are not seen; `ignored` counts
    the other files whose suffix is not an image's.
    """

    def __init__(self, options: ImageFolderOptions, **settings: Any):
        scan = Scan(Path(options.root or ""), options)
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
        if not root.is_dir():
            what = "is a file" if root.exists() else "does not exist"
            raise ValueError(f"data: root={str(root)!r} {what}; it must be the folder with your images")
        folders = self._part_folders()
        self.class_names = _subfolders(root / folders["train"])
        self._check_classes(folders)
        found = {part: self._files(folder) for part, folder in folders.items()}
        raise_all([self.faults])
        self.parts = self._divide(found, test=0.0 if folders["train"] else 0.15)
        self.skipped = Skipped(options.tolerated_errors)
        self.skipped.note([(str(root / path), why) for _, path, why in self.faults.dropped])

    def _part_folders(self) -> dict[str, str]:
        """The folder, relative to the root, of each part that has one; "" is the root itself."""
        present = _subfolders(self.root)
        named = {part: [name for name in names if name in present] for part, names in PART_NAMES.items()}
        strangers = set(present) - {name for names in PART_NAMES.values() for name in names}
        if not _subfolders(self.root / "train"):
            if present and not strangers:
                self.faults.fatal(f"it has {', '.join(present)}, but no train/ with one sub-folder a class")
                raise_all([self.faults])
            return {"train": ""}
        for part, names in named.items():
            if len(names) > 1:
                self.faults.fatal(f"{' and '.join(names)} both name the {part} images; keep one")
            fraction = getattr(self.options, f"{part}_fraction", None)
            if names and fraction is not None:
                self.faults.fatal(f"it has {names[0]}/, so data.{part}_fraction={fraction} must be null")
        return {part: names[0] for part, names in named.items() if names}

    def _check_classes(self, folders: dict[str, str]) -> None:
        if len(self.class_names) < 2:
            where = f"{folders['train']}/ in it has" if folders["train"] else "it has"
            what = f"only one class folder, {self.class_names[0]!r}" if self.class_names else "no class folders"
            self.faults.fatal(f"{where} {what}; put the images of each class into a sub-folder of its own")
        for folder in (folder for part, folder in folders.items() if part != "train"):
            there = set(_subfolders(self.root / folder))
            for name in sorted(there - set(self.class_names)):
                self.faults.fatal(f"{folder}/ has classes that train/ lacks", name)
            for name in sorted(set(self.class_names) - there):
                self.faults.fatal(f"{folder}/ lacks classes that train/ has", name)

    def _files(self, folder: str) -> Files:
        """All images of one part; a class without any is a fault."""
        files = Files(self.root)
        for label, name in enumerate(self.class_names):
            prefix = f"{folder}/{name}" if folder else name
            paths = [path for path in self._walk(prefix) if not self.options.verify or self._readable(path)]
            files.paths += paths
            files.labels += [label] * len(paths)
            if not paths and (self.root / prefix).is_dir():
                self.faults.fatal(f"no readable images ({' '.join(sorted(SUFFIXES))}) in these folders", prefix)
        return files

    def _walk(self, prefix: str) -> list[str]:
        """The files below a class folder whose suffix is an image's, sorted."""
        paths = []
        for folder, subfolders, names in os.walk(self.root / prefix, followlinks=True):
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]
            visible = [name for name in names if not name.startswith(".")]
            images = [name for name in visible if os.path.splitext(name)[1].lower() in SUFFIXES]
            self.ignored += len(visible) - len(images)
            paths += [Path(folder, name).relative_to(self.root).as_posix() for name in images]
        return sorted(paths)

    def _readable(self, path: str) -> bool:
        try:
            glance(self.root / path)
        except Exception as error:  # a decoder may raise anything on a broken file
            self.faults.drop("unreadable", path, reason(error))
            return False
        return True

    def _divide(self, found: dict[str, Files], test: float) -> dict[str, Files]:
        """Take the parts that have no folder out of train."""
        fractions = self.options.fractions(found, test)
        train = found["train"]
        counts = Counter(train.labels)
        parts = ", ".join(("train", *fractions))
        fix = "add images" + (" or set data.test_fraction=0" if "test" in fractions else "")
        for label, name in enumerate(self.class_names):
            if counts[label] <= len(fractions):
                kind = f"too few images to split into {parts} ({fix})"
                self.faults.fatal(kind, f"{name!r} ({counts[label]})")
        raise_all([self.faults])
        split = stratified(train.paths, train.labels, fractions, self.options.split_seed)
        return {**found, **{part: train.select(indices) for part, indices in split.items()}}


def _subfolders(folder: Path) -> list[str]:
    """The visible sub-folders' names, sorted; none when there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
