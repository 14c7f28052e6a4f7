"""What a shard holds of an image: the bytes of its file, and a small JSON of what it shows."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bbframe.data.boxes.objects import Objects
from bbframe.data.copies import image_file
from bbframe.imaging.decode import SUFFIXES
from bbframe.imaging.image_files import MAX_PIXELS, read_header

MIDDLE = 64  # bytes that tell two files of one size apart


@dataclass
class SampleNote:
    """What an index keeps of a sample: the `length` of its image file, and 64 bits of the SHA-256 of that."""

    length: int
    size: tuple[int, int]
    digest: int
    masks: list[bytes]


@dataclass
class Sample:
    """An image as a shard holds it: the file `image` with its `suffix`, its (height, width) as stored, and the rest.

    `masks` are the run lengths of its objects' masks, where they are kept.
    """

    image: bytes
    suffix: str
    size: tuple[int, int]
    facts: dict[str, Any]
    masks: list[bytes]

    def note(self) -> SampleNote:
        """What an index keeps of it."""
        digest = int.from_bytes(hashlib.sha256(self.image).digest()[:8], "big")
        return SampleNote(len(self.image), self.size, digest, self.masks)

    def json(self) -> bytes:
        """The facts, the same bytes for the same facts."""
        return json.dumps(self.facts, ensure_ascii=False, separators=(",", ":")).encode()


@dataclass
class SampleSource:
    """The images of one part, as samples; `ids` are what its annotations call the images, if they do."""

    images: Any
    names: list[str]
    class_names: list[str]
    masks: bool
    ids: list[int | str] | None

    def glimpse(self, index: int) -> tuple[int, int]:
        """How many bytes the image file has, and a checksum of some in its middle; pixels without one are encoded."""
        if (path := image_file(self.images, index)) is None:
            content = self._content(index)
            return len(content), zlib.crc32(content)
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(size // 2)
            return size, zlib.crc32(file.read(MIDDLE))

    def sample(self, index: int) -> Sample:
        """Raises ValueError with the image's name when it cannot be read."""
        try:
            content = self._content(index)
            with read_header(io.BytesIO(content), MAX_PIXELS) as image:
                size = image.height, image.width
        except Exception as error:  # a decoder may raise anything on a broken file
            raise ValueError(f"data: cannot read {self.names[index]}: {error}") from error
        facts: dict[str, Any] = {"name": self.names[index]}
        if self.ids is not None:
            facts["id"] = self.ids[index]
        if not hasattr(self.images, "target"):
            label = int(self.images.labels[index])
            return Sample(content, self._suffix(index), size, facts | self._class(label), [])
        target = self.images.target(index, False)
        height, width = target["size"].tolist()
        masks = self._run_lengths(index) if self.masks else []
        columns = [target[key].tolist() for key in ("boxes", "labels", "crowd", "area")]
        facts |= {"height": height, "width": width, "objects": []}
        for number, (box, label, crowd, area) in enumerate(zip(*columns, strict=True)):
            found = {"box": box, **self._class(label), "crowd": crowd, "area": area}
            facts["objects"].append(found | ({"mask": masks[number].decode()} if self.masks else {}))
        return Sample(content, self._suffix(index), (height, width), facts, masks)

    def _class(self, label: int) -> dict[str, Any]:
        return {"label": label, "class": self.class_names[label]}

    def _content(self, index: int) -> bytes:
        """The image file as it is; pixels that have none become a PNG, which loses nothing."""
        if hasattr(self.images, "content"):
            return self.images.content(index)
        if (path := image_file(self.images, index)) is not None:
            return path.read_bytes()
        file = io.BytesIO()
        self.images.read(index).save(file, "PNG")
        return file.getvalue()

    def _suffix(self, index: int) -> str:
        path = image_file(self.images, index)
        suffix = Path(self.names[index]).suffix.lower() if path is None else path.suffix.lower()
        return suffix if suffix in SUFFIXES else ".png"

    def _run_lengths(self, index: int) -> list[bytes]:
        """COCO's run lengths of the masks of an image's objects."""
        kept = getattr(self.images, "masks", None)
        if isinstance(self.images, Objects) and kept is not None:
            return list(kept[self.images.offsets[index] : self.images.offsets[index + 1]])
        from faster_coco_eval.core.mask import encode

        masks = self.images.target(index, True)["masks"].numpy()
        return [encode(np.asfortranarray(mask))["counts"] for mask in masks]


def tar_member(name: str, content: bytes, owner: str) -> bytes:
    """A file in a tar: header, content, and zeros up to the next step of 512 bytes. No time, no user."""
    header = tarfile.TarInfo(name)
    header.size, header.uname = len(content), owner
    return header.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % tarfile.BLOCKSIZE)
