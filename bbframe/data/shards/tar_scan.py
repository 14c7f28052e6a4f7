"""What tars of other programs hold, read from their headers once: WebDataset's samples, files of one name each."""

from __future__ import annotations

import json
import os
import re
import tarfile
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bbframe.data.faults import Faults
from bbframe.data.shards.shard_index import ShardIndex, packed_rows
from bbframe.imaging.decode import SUFFIXES, Decoding, glance, reason

MOST_JSON = 2**24  # bytes of a sample's JSON or label
NOT_WHOLE = "tars that are absent or not whole"  # a kind of fault
PIECE = 2**20
_NUMBERS = ("label", "cls", "class_id", "class_index", "target", "class")
_WORDS = ("class", "class_name", "label_name", "label")
_LABELS = ("cls", "json", "txt")  # suffixes of what tells the class, the surest first

Found = tuple[str, tarfile.TarInfo, dict[str, bytes]]


class _Sample:
    """The files of a tar that have one name, as they come: an image, and small files by their suffixes.

    Of several images the one of the plain suffix counts: a.jpg beside a.mask.png.
    """

    def __init__(self, name: str, key: str):
        self.name, self.key = name, key
        self.texts: dict[str, bytes] = {}
        self._images: list[tuple[bool, tarfile.TarInfo]] = []
        self._twice = ""  # a suffix that two files have

    def take(self, member: tarfile.TarInfo, suffix: str, tar: tarfile.TarFile) -> None:
        """Take a file, whose `suffix` is all behind the first dot of its name."""
        last = suffix.lower().rpartition(".")[2]
        if f".{last}" in SUFFIXES:
            self._images.append((last == suffix.lower(), member))
        elif last in _LABELS and member.size <= MOST_JSON and (file := tar.extractfile(member)) is not None:
            content = file.read()
            if self.texts.setdefault(last, content) != content:
                self._twice = f".{last}"

    def found(self, faults: Faults) -> Iterator[Found]:
        """The sample, if it is one."""
        plain = [image for plain, image in self._images if plain] or [image for _, image in self._images]
        if not plain:
            if self.texts:
                faults.drop("samples without an image", f"{self.name}/{self.key}")
        elif len(plain) > 1:
            names = f"{os.path.basename(plain[0].name)} and {os.path.basename(plain[1].name)}"
            why = f"{names} have one name, which ends at its first dot"
            faults.drop("samples of several images", f"{self.name}/{self.key}", why)
        elif self._twice:
            faults.drop("samples of two labels", f"{self.name}/{self.key}", f"two files {self._twice} differ")
        else:
            yield f"{self.name}/{self.key}{os.path.splitext(plain[0].name)[1]}", plain[0], self.texts


def samples_of(path: Path, name: str, faults: Faults) -> Iterator[Found]:
    """The samples of a tar: what each is called, its image, and its small files by their suffixes.

    Files with the same path up to the first dot of their name are one sample, if they follow one another. Raises
    OSError, EOFError or TarError when the tar is absent or not whole, behind the samples before that.
    """
    sample = _Sample(name, "")
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            tar.members = []  # type: ignore[attr-defined]  # tarfile keeps all that it has seen
            folder, base = os.path.split(member.name)
            stem, _, suffix = base.partition(".")
            if not member.isreg() or not stem:
                continue
            if (own := os.path.join(folder, stem)) != sample.key:
                yield from sample.found(faults)
                sample = _Sample(name, own)
            sample.take(member, suffix, tar)
        end = tar.offset
    yield from sample.found(faults)
    _check_end(path, end)


def _check_end(path: Path, end: int) -> None:
    """Raise TarError unless the archive ends at byte `end`, where tarfile stops without a word whatever is there."""
    with path.open("rb") as file:
        file.seek(end)
        head = file.read(tarfile.BLOCKSIZE)
        if len(head) < tarfile.BLOCKSIZE:
            raise tarfile.TarError(f"cut off at byte {end + len(head)}")
        if any(head):
            raise tarfile.TarError(f"damaged at byte {end}")
        while piece := file.read(PIECE):
            if any(piece):
                raise tarfile.TarError(f"goes on behind its end at byte {end}, as tars do that cat has joined")


class TarScan:
    """The samples of one part's tars as they are found; `names` are what the numbers of classes are called.

    With `decoding` the header and the end of every image are read, too.
    """

    def __init__(self, task: str, faults: Faults, decoding: Decoding | None = None):
        self.task, self.faults, self.decoding = task, faults, decoding
        self.places = array("q")  # shard, offset, size
        self.titles: list[bytes] = []
        self.labels: list[int | str] = []
        self.names: dict[int, str] = {}  # of labels that are numbers
        self.sizes: list[tuple[int, int]] = []
        self.counts: list[int] = []
        self.table = array("d")  # x1, y1, x2, y2, class, crowd, area
        self.masks: list[bytes] = []

    def take(self, number: int, path: Path, name: str) -> bool:
        """Take the samples of shard `number`; whether it is whole."""
        try:
            with path.open("rb") as file:
                for title, image, texts in samples_of(path, name, self.faults):
                    if self._readable(file, title, image):
                        self._take(number, title, image, texts)
        except (tarfile.TarError, OSError, EOFError) as error:
            self.faults.drop(NOT_WHOLE, name, str(error) or type(error).__name__)
            return False
        return True

    def _readable(self, file: BinaryIO, title: str, image: tarfile.TarInfo) -> bool:
        if self.decoding is None:
            return True
        file.seek(image.offset_data)
        try:
            facts = glance(file.read(image.size), self.decoding)
        except Exception as error:  # a decoder may raise anything on a broken file
            self.faults.drop("unreadable", title, reason(error))
            return False
        for what in facts.assumed:
            self.faults.assume(what, title)
        return True

    def _take(self, number: int, title: str, image: tarfile.TarInfo, texts: dict[str, bytes]) -> None:
        try:
            if self.task == "classification":
                self.labels.append(self._label(texts, title))
            else:
                self._objects(_json(texts))
        except ValueError as error:
            kind = (
                "samples without a label" if self.task == "classification" else "samples without objects in their JSON"
            )
            self.faults.drop(kind, title, str(error))
            return
        self.places.extend([number, image.offset_data, image.size])
        self.titles.append(title.encode(errors="backslashreplace"))

    def _label(self, texts: dict[str, bytes], title: str) -> int | str:
        """A class by its number or by its name."""
        if "cls" in texts:
            return self._number_or_name(texts["cls"], title)
        facts = _json(texts) if "json" in texts else {}
        number = next((facts[key] for key in _NUMBERS if type(facts.get(key)) is int), None)
        word = next((facts[key] for key in _WORDS if isinstance(facts.get(key), str) and facts[key].strip()), None)
        if number is not None:
            if word is not None and self.names.setdefault(number, word.strip()) != word.strip():
                raise ValueError(f"class {number} is {word.strip()!r} here and {self.names[number]!r} before")
            return _counted(number)
        if word is not None:
            return word.strip()
        if "txt" in texts:
            return self._number_or_name(texts["txt"], title)
        raise ValueError("it needs a file .cls, .json with a label, or .txt")

    def _number_or_name(self, content: bytes, title: str) -> int | str:
        try:
            word = content.decode("utf-8-sig").strip()
        except UnicodeDecodeError:
            word = content.decode("latin-1").strip()
            self.faults.assume("labels that are not UTF-8, read as Latin-1", title)
        if not word:
            raise ValueError("its label is empty")
        return _counted(int(word)) if re.fullmatch(r"-?[0-9]{1,18}", word) else word

    def _objects(self, facts: dict[str, Any]) -> None:
        """The objects of a sample, as `bbframe data shard` writes them."""
        height, width, objects = facts.get("height"), facts.get("width"), facts.get("objects")
        if type(height) is not int or type(width) is not int or not isinstance(objects, list):
            raise ValueError("it needs height, width and objects")
        rows, masks = [], []
        for found in objects:
            try:
                box, label = [float(value) for value in found["box"]], found["label"]
                crowd, mask = bool(found.get("crowd", False)), str(found.get("mask", "")).encode()
                area = float(found.get("area", (box[2] - box[0]) * (box[3] - box[1])))
            except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
                raise ValueError("an object needs box (x1, y1, x2, y2) and label") from error
            whole = len(box) == 4 and 0 <= box[0] < box[2] <= width and 0 <= box[1] < box[3] <= height
            if not whole or type(label) is not int or label < 0:
                raise ValueError(f"box={box} must lie within {width}x{height}, and label={label!r} be a number from 0")
            if isinstance(word := found.get("class"), str):
                self.names.setdefault(label, word)
            rows.append([*box, label, crowd, area])
            masks.append(mask)
        for row in rows:
            self.table.extend(row)
        self.masks += masks
        self.counts.append(len(rows))
        self.sizes.append((height, width))

    def index(self, numbers: dict[int | str, int]) -> ShardIndex:
        """The index of what was taken; `numbers` are the classes of the labels as they are written."""
        places = np.array(self.places, np.int64).reshape(-1, 3)
        index = ShardIndex(places[:, 0].astype(np.int32), places[:, 1], places[:, 2], packed_rows(self.titles))
        if self.task == "classification":
            index.labels = np.array([numbers[label] for label in self.labels], np.int64)
            return index
        table = np.array(self.table).reshape(-1, 7)
        index.sizes = np.array(self.sizes, np.int64).reshape(-1, 2)
        index.object_offsets = np.cumsum([0, *self.counts], dtype=np.int64)
        index.boxes, index.area = table[:, :4].astype(np.float32), table[:, 6].astype(np.float32)
        index.classes, index.crowd = table[:, 4].astype(np.int64), table[:, 5] > 0
        index.masks = packed_rows(self.masks) if self.masks and all(self.masks) else None
        return index


def _json(texts: dict[str, bytes]) -> dict[str, Any]:
    try:
        facts = json.loads(texts.get("json", b""))
    except (ValueError, RecursionError) as error:
        raise ValueError("its JSON is absent or broken") from error
    if not isinstance(facts, dict):
        raise ValueError("its JSON must be a mapping")
    return facts


def _counted(number: int) -> int:
    if number < 0:
        raise ValueError(f"label={number} must be a number from 0")
    return number
