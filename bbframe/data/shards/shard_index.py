"""Where the images of a part lie in its shards and what they show: arrays, because an object an image fills memory."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from bbframe.data.boxes.objects import Rows, rows_of

OWN = 512  # bytes of a tar's header, and the step in which its content lies
_ROWS = ("names", "masks", "texts")  # fields that hold a row of bytes an image or an object
# the fields of one value an image, and those of one an object
_OF_IMAGES = ("shard", "offset", "size", "digests", "sizes", "labels", "ids")
_OF_OBJECTS = ("boxes", "classes", "crowd", "area")


def packed_rows(texts: Iterable[bytes]) -> Rows:
    """Many short texts as one array of bytes."""
    lengths: list[int] = []
    joined = bytearray()
    for text in texts:
        joined += text
        lengths.append(len(text))
    return Rows(np.frombuffer(bytes(joined), np.uint8), np.cumsum([0, *lengths], dtype=np.int64))


@dataclass
class ShardIndex:
    """The images of one part, in its order.

    Image i is `size` bytes from byte `offset` of shard number `shard`; `names` are UTF-8. `digests` are 64 bits of the
    SHA-256 of its bytes, `sizes` (images, 2) heights and widths, both None where nobody has looked.

    A classifier's images have `labels`. Objects lie between `object_offsets` (images + 1,): `boxes` (objects, 4)
    float32 xyxy, `classes`, `crowd`, `area` and, if there are any, `masks`, COCO's run lengths. What annotations call
    an image is a number, `ids`, or a text, `texts`; both are None where its place is its id.
    """

    shard: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    names: Rows
    digests: np.ndarray | None = None
    sizes: np.ndarray | None = None
    labels: np.ndarray | None = None
    object_offsets: np.ndarray | None = None
    boxes: np.ndarray | None = None
    classes: np.ndarray | None = None
    crowd: np.ndarray | None = None
    area: np.ndarray | None = None
    masks: Rows | None = None
    ids: np.ndarray | None = None
    texts: Rows | None = None

    def __len__(self) -> int:
        return len(self.shard)

    def name(self, index: int) -> str:
        """What an error message, a file of fixes and a fingerprint call the image."""
        return self.names[index].tobytes().decode(errors="replace")

    def image_id(self, index: int) -> int | str:
        """What a file of annotations calls the image."""
        if self.ids is not None:
            return int(self.ids[index])
        return index if self.texts is None else self.texts[index].tobytes().decode(errors="replace")

    def select(self, indices: Sequence[int] | np.ndarray) -> ShardIndex:
        """Some of the images."""
        chosen = np.asarray(indices, np.int64)
        changed: dict[str, object] = {}
        for name in _OF_IMAGES:
            if (values := getattr(self, name)) is not None:
                changed[name] = values[chosen]
        for name in ("names", "texts"):
            if (rows := getattr(self, name)) is not None:
                changed[name] = rows.select(chosen)
        if self.object_offsets is not None:
            kept, changed["object_offsets"] = rows_of(self.object_offsets, chosen)
            changed |= {name: getattr(self, name)[kept] for name in _OF_OBJECTS}
            changed["masks"] = None if self.masks is None else self.masks.select(kept)
        return replace(self, **changed)  # type: ignore[arg-type]

    def to_bytes(self) -> bytes:
        """The file of an index: arrays by their names, the same bytes for the same index."""
        arrays: dict[str, np.ndarray] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Rows):
                arrays |= {field.name: value.values, f"{field.name}_offsets": value.offsets}
            elif value is not None:
                arrays[field.name] = value
        file = io.BytesIO()
        np.savez(file, **arrays)  # type: ignore[arg-type]
        return file.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes, num_shards: int, num_classes: int) -> ShardIndex:
        """Read a file of `to_bytes`. Raises ValueError for what is none, or does not agree with itself."""
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            found = {name: arrays[name] for name in (field.name for field in fields(cls)) if name in arrays}
            rows = {name: Rows(found[name], arrays[f"{name}_offsets"]) for name in _ROWS if name in found}
            index = cls(**{**found, **rows})
        except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError("is no index of shards") from error
        index._check(num_shards, num_classes)
        return index

    def _check(self, num_shards: int, num_classes: int) -> None:
        count, problems = len(self), []
        for name in _OF_IMAGES:
            if (values := getattr(self, name)) is not None and len(values) != count:
                problems.append(f"{name} of {len(values)} images")
        ends = {"names": (self.names, count), "texts": (self.texts, count)}
        objects = 0
        if self.object_offsets is not None:
            objects = len(self.classes) if self.classes is not None else -1
            ends["objects"] = (Rows(np.zeros(max(0, objects), np.uint8), self.object_offsets), count)
            ends["masks"] = (self.masks, objects)
            for name in _OF_OBJECTS:
                if (values := getattr(self, name)) is None or len(values) != objects:
                    problems.append(f"no {name} of its {objects} objects")
        elif self.labels is None:
            problems.append("neither labels nor objects")
        for name, (rows, length) in ends.items():
            if rows is not None and not rows.fits(length):
                problems.append(f"broken {name}")
        low = min((int(values.min()) for values in (self.shard, self.offset, self.size) if len(values)), default=0)
        if low < 0 or (count and int(self.shard.max()) >= num_shards):
            problems.append("places outside of its shards")
        classes = self.labels if self.classes is None else self.classes
        if classes is not None and len(classes) and not 0 <= int(classes.min()) <= int(classes.max()) < num_classes:
            problems.append("classes that have no name")
        if problems:
            raise ValueError(f"contradicts itself: it has {', '.join(problems)}")
