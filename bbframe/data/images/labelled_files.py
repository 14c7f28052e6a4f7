"""Image files with a class each, in little memory."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image

from bbframe.data.packed_names import PackedNames
from bbframe.files import encodable
from bbframe.imaging.decode import AS_USUAL, Decoding, read_image
from bbframe.imaging.jpeg_file import JpegFile, plain_jpeg


@dataclass
class Files:
    """Image files and their labels, paths relative to `root` and written with slashes."""

    root: Path
    paths: PackedNames = field(default_factory=lambda: PackedNames.of(()))
    labels: array[int] = field(default_factory=lambda: array("q"))
    decoding: Decoding = AS_USUAL

    def read(self, index: int) -> Image.Image:
        return read_image(self.root / self.paths[index], self.decoding)

    def plain_jpeg(self, index: int) -> JpegFile | None:
        return plain_jpeg(self.root / self.paths[index], self.decoding)

    def name(self, index: int) -> str:
        return encodable(str(self.root / self.paths[index]))

    def select(self, indices: Sequence[int]) -> Files:
        labels = array("q", (self.labels[i] for i in indices))
        return replace(self, paths=self.paths.select(indices), labels=labels)
