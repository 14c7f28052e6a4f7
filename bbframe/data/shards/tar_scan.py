"""What tars of other programs hold, read from their headers once: WebDataset's samples, files of one name each."""

from __future__ import annotations

import json
import os
import tarfile
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bbframe.data.faults import Faults
from bbframe.data.shards.shard_index import ShardIndex, packed_rows
from bbframe.imaging.decode import SUFFIXES

MOST_JSON = 2**24  # bytes of a sample's JSON or label
_NUMBERS = ("label", "cls", "class_id", "class_index", "target")
_WORDS = ("class", "class_name", "label_name", "label")
_LABELS = ("cls", "json", "txt")  # suffixes of what tells the class, the surest first

Found = tuple[str, tarfile.TarInfo, dict[str, bytes]]


def samples_of(path: Path, name: str, faults: Faults) -> Iterator[Found]:
    """The samples of a tar: what each is called, its image, and its small files by their suffixes.

    Files with the same path up to the first dot of their name are one sample, if they follow one another.
    """
    key, image = "", None
    texts: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # tarfile keeps all that it has seen
                folder, base = os.path.split(member.name)
                stem, _, suffix = base.partition(".")
                if not member.isreg() or not stem:
                    continue
                if (own := os.path.join(folder, stem)) != key:
                    if texts or image is not None:
                        yield from _whole(name, key, image, texts, faults)
                    key, image, texts = own, None, {}
                last = suffix.lower().rpartition(".")[2]
                if f".{last}" in SUFFIXES:
                    image = image or member
                elif last in _LABELS and member.size <= MOST_JSON and (file := tar.extractfile(member)) is not None:
                    texts[last] = file.read()
        if texts or image is not None:
            yield from _whole(name, key, image, texts, faults)
    except (tarfile.TarError, OSError, EOFError) as error:
        why = str(error) or type(error).__name__
        if faults.skip:
            faults.drop("tars that are absent or not whole", name, why)
        else:
            faults.fatal("tars that are absent or not whole", name, why)


def _whole(
    name: str, key: str, image: tarfile.TarInfo | None, texts: dict[str, bytes], faults: Faults
) -> Iterator[Found]:
    if image is None:
        faults.drop("samples without an image", f"{name}/{key}")
    else:
        yield f"{name}/{key}{os.path.splitext(image.name)[1]}", image, texts


class TarScan:
    """The samples of one part's tars as they are found; `names` are what the numbers of classes are called."""

    def __init__(self, task: str, faults: Faults):
        self.task, self.faults = task, faults
        self.places = array("q")  # shard, offset, size
        self.titles: list[bytes] = []
        self.labels: list[int | str] = []
        self.names: dict[int, str] = {}  # of labels that are numbers
        self.sizes: list[tuple[int, int]] = []
        self.counts: list[int] = []
        self.table = array("d")  # x1, y1, x2, y2, class, crowd, area
        self.masks: list[bytes] = []

    def take(self, number: int, path: Path, name: str) -> None:
        """Take the samples of shard `number`."""
        for title, image, texts in samples_of(path, name, self.faults):
            try:
                if self.task == "classification":
                    self.labels.append(self._label(texts))
                else:
                    self._objects(_json(texts))
            except ValueError as error:
                self.faults.drop("samples without a label" if self.task == "classification" else
                                 "samples without objects in their JSON", title, str(error))  # fmt: skip
                continue
            self.places.extend([number, image.offset_data, image.size])
            self.titles.append(title.encode(errors="backslashreplace"))

    def _label(self, texts: dict[str, bytes]) -> int | str:
        """A class by its number or by its name."""
        if "cls" in texts:
            return _number_or_name(texts["cls"].decode(errors="replace"))
        facts = _json(texts) if "json" in texts else {}
        number = next((facts[key] for key in _NUMBERS if type(facts.get(key)) is int), None)
        word = next((facts[key] for key in _WORDS if isinstance(facts.get(key), str) and facts[key].strip()), None)
        if number is not None:
            if word is not None and self.names.setdefault(number, word.strip()) != word.strip():
                raise ValueError(f"class {number} is {word.strip()!r} here and {self.names[number]!r} before")
            return number
        if word is not None:
            return word.strip()
        if "txt" in texts:
            return _number_or_name(texts["txt"].decode(errors="replace"))
        raise ValueError("it needs a file .cls, .json with a label, or .txt")

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


def _number_or_name(text: str) -> int | str:
    word = text.strip()
    if not word:
        raise ValueError("its label is empty")
    return int(word) if word.isascii() and word.isdigit() else word
