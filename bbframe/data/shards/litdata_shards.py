"""Images in litdata's chunks, read by litdata itself, one sample at a time in our order."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bbframe.data.shards.downloads import without_query

LITDATA_INDEX = "index.json"


def import_litdata() -> Any:
    """The package litdata. Raises ValueError that says how to install it."""
    try:
        import litdata
    except ImportError as error:
        raise ValueError(
            f"data: litdata's shards need the extra litdata ({error}): pip install 'bbframe[litdata]'"
        ) from error
    return litdata


class LitdataShards:
    """The chunks of one part, in a folder or at s3://, which litdata then keeps within its own cache of `most` bytes.

    A place is the number of a sample. Every process opens the data set for itself.
    """

    def __init__(self, place: str, cache: Path, most: int):
        if place.startswith(("http://", "https://")):
            raise ValueError(
                f"data: shards={without_query(place)}: litdata reads folders and s3://, not https://; write the set "
                "without --format litdata"
            )
        self.place, self.cache, self.most = place, cache, most
        self._opened: tuple[int, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_opened": None}

    @property
    def samples(self) -> Any:
        """litdata's data set of this process; JPEG files come as they are."""
        if self._opened is None or self._opened[0] != os.getpid():
            litdata = import_litdata()
            from litdata.streaming.serializers import BytesSerializer

            far: dict[str, Any] = {}
            if self.place.startswith("s3://"):
                far = {"cache_dir": str(self.cache / "litdata"), "max_cache_size": self.most}
            try:
                found = litdata.StreamingDataset(self.place, serializers={"jpeg": BytesSerializer()}, **far)
            except Exception as error:  # litdata raises many kinds
                why = " ".join(str(error).split())[:300]
                raise ValueError(f"data: litdata cannot open {self.place}: {why}") from error
            self._opened = os.getpid(), found
        return self._opened[1]

    def read(self, shard: int, offset: int, size: int) -> bytes:
        """The image file of a sample; pixels that have none become a PNG."""
        return image_of(self.samples[offset])

    def fetch(self, shard: int) -> None:
        """Left to litdata."""


def image_of(sample: Any) -> bytes:
    """The image of a sample: its first value that can be one, whatever it is called."""
    values = (
        list(sample.values()) if isinstance(sample, dict) else sample if isinstance(sample, list | tuple) else [sample]
    )
    for value in values:
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value)
        if isinstance(value, Image.Image):
            return _png(value)
        if getattr(value, "ndim", 0) in (2, 3) and str(value.dtype).endswith("uint8"):
            pixels = np.asarray(value)
            first = pixels.ndim == 3 and pixels.shape[0] in (1, 3)  # (C, H, W), as torch has it
            return _png(Image.fromarray((pixels.transpose(1, 2, 0) if first else pixels).squeeze()))
    raise ValueError("its sample holds no image: neither bytes, nor a picture, nor pixels of 8 bits")


def label_of(sample: Any) -> int | str:
    """The class of a sample: its first whole number, else its first word, whatever it is called."""
    values = list(sample.values()) if isinstance(sample, dict) else sample if isinstance(sample, list | tuple) else []
    for value in values:
        if getattr(value, "ndim", None) == 0 and not isinstance(value, bool) and float(value) == int(value):
            return int(value)
        if type(value) is int and value >= 0:
            return value
    found = next((value for value in values if isinstance(value, str) and value), None)
    if found is None:
        raise ValueError("its sample has neither a number nor a word as its label")
    return found


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=0)
    return file.getvalue()
