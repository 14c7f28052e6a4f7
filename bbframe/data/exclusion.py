"""Images that a file of fixes leaves out of a data set, or gives another class: `data.exclude=fixes.csv`."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bbframe.data.batch_loader import Images
from bbframe.data.boxes.objects import flat_labels
from bbframe.data.faults import Skipped, first_few
from bbframe.data.fixes_file import Fix, read_fixes
from bbframe.files import encodable, visible
from bbframe.schema import nearest

log = logging.getLogger("bbframe")


@dataclass
class Exclusion:
    """The rows of a file of fixes. Once applied it holds how many images were left out and relabelled, by part."""

    file: str = ""
    sha256: str = ""
    fixes: list[Fix] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    relabelled: dict[str, int] = field(default_factory=dict)
    unmatched: list[str] = field(default_factory=list)
    dropped: set[str] = field(default_factory=set)  # names of images that cannot serve, and were not asked to
    validation: str | None = None  # a hash of what has changed in the validation images, if anything has
    _names: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._names = {fix.image for fix in self.fixes if fix.action == "exclude"}

    def check_sha256(self, sha256: str | None) -> None:
        """Raise ValueError when the file is another one than a run has recorded."""
        if self.file and sha256 is not None and sha256.lower() != self.sha256:
            raise ValueError(
                f"data: exclude={visible(self.file)} has changed since the run that recorded it (SHA-256 "
                f"{self.sha256[:12]}, not {sha256[:12]}); data.exclude_sha256=null takes it as it is"
            )

    def names(self, path: str, root: Path) -> bool:
        """Whether an image file is to be left out, so that nobody needs to look into it."""
        return bool(self._names) and bool(self._names & set(_spellings(encodable(path), str(root))))

    def drop(self, path: str, root: Path) -> None:
        """Take note of an image that is to be left out, and that was not even to be had."""
        self.dropped.add(next(name for name in _spellings(encodable(path), str(root)) if name in self._names))

    def counts(self) -> dict[str, Any]:
        """What a run records: the file, its SHA-256, and how many images it left out and relabelled."""
        return {
            "file": self.file,
            "sha256": self.sha256,
            "left_out": sum(self.left_out.values()) + len(self.dropped),
            "relabelled": sum(self.relabelled.values()),
            "unmatched": len(self.unmatched),
            "validation": self.validation,
        }

    def told(self) -> str:
        """The one line that says what was done."""
        left_out = {**self.left_out, **({"not read": len(self.dropped)} if self.dropped else {})}
        ignored = sum(fix.action in ("check", "keep") for fix in self.fixes)
        text = f"{visible(self.file)}: left out {_counted(left_out)}, relabelled {_counted(self.relabelled)}, "
        text += f"ignored {ignored} row{'s' * (ignored != 1)} to check or keep"
        if lost := self.unmatched:
            text += f"; {len(lost)} row{'s match' if len(lost) > 1 else ' matches'} no image: {first_few(lost)}"
        return text


def _counted(counts: Mapping[str, int]) -> str:
    """{"train": 3} -> "3 images (3 train)"."""
    parts = ", ".join(f"{count} {part}" for part, count in counts.items())
    total = sum(counts.values())
    return f"{total} image{'s' * (total != 1)}" + (f" ({parts})" if parts else "")


def read_exclusion(path: str | None) -> Exclusion:
    """What a file of fixes asks for, nothing without a path. Raises ValueError as `read_fixes` does."""
    if path is None:
        return Exclusion()
    fixes, sha256 = read_fixes(path)
    return Exclusion(path, sha256, fixes)


def image_name(images: Images, index: int) -> str:
    """What a file of fixes calls an image: its path below the root of its data, or the name of one without a file."""
    paths = getattr(images, "paths", None)
    return encodable(paths[index]) if paths is not None else images.name(index)


def _spellings(path: str, root: str) -> tuple[str, ...]:
    return path, encodable(str(Path(root, path))), encodable(os.path.realpath(Path(root, path)))


def _plain(name: str) -> str:
    """A name as other systems or a person may spell it: without ./, with slashes, without blanks around it."""
    return re.sub(r"^(\./)+", "", name.strip().replace("\\", "/"))


def apply_exclusion(
    exclusion: Exclusion, parts: Mapping[str, Images], class_names: Sequence[str], skipped: Skipped
) -> dict[str, Images]:
    """The parts without the images to be left out, and with the new classes; one line of the log says what was done.

    Each row counts by itself: an image with a row to exclude it is left out whatever its other rows say. Raises
    ValueError for a class that there is not, two new classes of one image, a name that several images bear, rows to
    exclude that all match no image, and fixes that leave a part, or a class of train, without images.
    """
    if not exclusion.file:
        return dict(parts)
    where = f"data: exclude={visible(exclusion.file)}"
    asked = {name for fix in exclusion.fixes for name in (fix.image, _plain(fix.image))}
    places: dict[str, list[tuple[str, int]]] = {}
    for part, images in parts.items():
        for index in range(len(images.labels)):
            name, root = image_name(images, index), getattr(images, "root", None)
            for spelling in {name, images.name(index), *(() if root is None else _spellings(name, str(root)))}:
                if spelling in asked:
                    places.setdefault(spelling, []).append((part, index))
    leave: dict[str, set[int]] = {part: set() for part in parts}
    relabel: dict[str, dict[int, int]] = {part: {} for part in parts}
    lost: dict[str, None] = {}
    for fix in exclusion.fixes:
        if fix.action not in ("exclude", "relabel"):
            continue
        everywhere = places.get(fix.image) or places.get(_plain(fix.image)) or []
        found = [place for place in everywhere if not fix.part or place[0] == fix.part]
        if len(found) != 1:
            if len(found) > 1:
                several = f"{visible(fix.image)!r}, which {len(found)} images bear"
                raise ValueError(f"{where} names {several}; write which one's part into the column part")
            if fix.image not in exclusion.dropped:
                lost[fix.image] = None
            continue
        part, index = found[0]
        if fix.action == "exclude":
            leave[part].add(index)
        else:
            _relabel(where, fix, parts[part], index, relabel[part], class_names)
    chosen = {part: _changed(where, part, parts[part], leave[part], relabel[part]) for part in parts}
    _check_left(where, parts, chosen, class_names, skipped)
    exclusion.left_out = {part: len(indices) for part, indices in leave.items() if indices}
    kept = {part: {i: c for i, c in new.items() if i not in leave[part]} for part, new in relabel.items()}
    exclusion.relabelled = {part: len(new) for part, new in kept.items() if new}
    exclusion.unmatched = list(lost)
    changed = [f"-{image_name(parts['val'], i)}" for i in sorted(leave.get("val", ()))]
    changed += [f"{image_name(parts['val'], i)}={c}" for i, c in sorted(kept.get("val", {}).items())]
    exclusion.validation = hashlib.sha256("\n".join(changed).encode()).hexdigest()[:16] if changed else None
    wanted = sum(fix.action in ("exclude", "relabel") for fix in exclusion.fixes)
    if wanted and len(lost) and not (exclusion.left_out or exclusion.relabelled or exclusion.dropped):
        raise ValueError(f"{where}: no row to exclude or relabel matches an image, such as {first_few([*lost][:1])}")
    log.log(logging.WARNING if lost else logging.INFO, "%-9s %s", "exclude", exclusion.told())
    return chosen


def _relabel(
    where: str, fix: Fix, images: Images, index: int, taken: dict[int, int], class_names: Sequence[str]
) -> None:
    """Take the new class of an image into `taken`."""
    if np.ndim(images.labels[index]) != 0:
        raise ValueError(
            f"{where} relabels {visible(fix.image)!r}, but its objects have classes, not the image; edit "
            "the annotations"
        )
    if fix.suggestion not in class_names:
        known = nearest(fix.suggestion, class_names)
        raise ValueError(f"{where}: {visible(fix.image)!r} cannot become {visible(fix.suggestion)!r}{known}")
    label = list(class_names).index(fix.suggestion)
    if taken.setdefault(index, label) != label:
        raise ValueError(f"{where} gives {visible(fix.image)!r} two classes; keep one of the rows")


def _changed(where: str, part: str, images: Any, leave: set[int], relabel: Mapping[int, int]) -> Any:
    """A part without some images and with other classes."""
    if not leave and not relabel:
        return images
    if not hasattr(images, "select"):
        kind = type(images).__name__
        raise ValueError(f"{where} cannot change the images of {kind}; give that class a method select(indices)")
    kept = [i for i in range(len(images.labels)) if i not in leave]
    if not kept:
        raise ValueError(f"{where} leaves no {part} images; remove rows from the file")
    chosen = images.select(kept)
    for place, index in enumerate(kept):
        if index in relabel:
            chosen.labels[place] = relabel[index]
    return chosen


def _check_left(
    where: str,
    before: Mapping[str, Images],
    after: Mapping[str, Images],
    class_names: Sequence[str],
    skipped: Skipped,
) -> None:
    """Whether each part still shows something, and train all classes that it had."""
    for part in before:
        had, has = _classes(before[part]), _classes(after[part])
        if had and not has:
            raise ValueError(f"{where} leaves no {part} image with an object; remove rows from the file")
        lost = [class_names[label] for label in sorted(had - has)]
        if lost and part == "train":
            raise ValueError(f"{where} leaves no train images of these classes: {first_few(lost)}; remove their rows")
        skipped.assume((f"classes that data.exclude leaves without {part} images", name) for name in lost)


def _classes(images: Images) -> set[int]:
    return set(np.unique(flat_labels(images)).tolist())
